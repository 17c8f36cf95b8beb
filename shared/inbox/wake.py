"""Waking work that waits. Register before you look: then what arrives in between is not missed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, case, func, select, update

from shared.database.engine import Connection
from shared.database.inserting import insert_into
from shared.database.notifying import READY_WORK, notify
from shared.database.tables import inbox, inbox_wake
from shared.inbox.outcome import LeaseLost
from shared.inbox.row import READY, WORKING, locked


async def wake(connection: Connection, *keys: str) -> None:
    """Make the work that waits for one of `keys` ready when this transaction commits.

    Work that is being done notes it as well: should it end as Later, it is done again at once.
    """
    wanted = sorted(set(keys))
    await _take_turns(connection, wanted, function="pg_advisory_xact_lock")
    registered = select(inbox_wake.c.inbox_id).where(inbox_wake.c.wake_key.in_(wanted))
    asleep = and_(inbox.c.state == READY, inbox.c.waiting)
    sleepers = locked(inbox.c.id.in_(registered), inbox.c.state.in_((READY, WORKING)))
    woken = await connection.execute(
        update(inbox)
        .where(inbox.c.id == sleepers.c.id)
        .values(
            wake_count=inbox.c.wake_count + 1,
            not_before_ms=case((asleep, None), else_=inbox.c.not_before_ms),
            waiting=case((asleep, False), else_=inbox.c.waiting),
        )
    )
    if woken.rowcount:
        await notify(connection, READY_WORK)


async def register(connection: Connection, *, row_id: int, token: int, keys: Sequence[str]) -> None:
    """Register keys for work that is claimed under a token. Raises LeaseLost."""
    wanted = sorted(set(keys))
    await _take_turns(connection, wanted, function="pg_advisory_xact_lock_shared")
    ours = (
        select(inbox.c.id)
        .where(inbox.c.id == row_id, inbox.c.token == token, inbox.c.state == WORKING)
        .with_for_update()
    )
    if (await connection.execute(ours)).first() is None:
        raise LeaseLost
    if wanted:
        await connection.execute(
            insert_into(connection, inbox_wake).on_conflict_do_nothing(),
            [{"inbox_id": row_id, "wake_key": key} for key in wanted],
        )


async def _take_turns(connection: Connection, keys: Sequence[str], *, function: str) -> None:
    """Let registering wait for a waking transaction on the same key, and the other way round.

    Otherwise, on PostgreSQL, a transaction that brings something could wake (nobody there yet), the work
    could register and look (not committed yet), and both would go on: the wake is lost.
    On SQLite all writes are one after the other anyhow.
    """
    if connection.dialect.name != "postgresql":
        return
    lock = getattr(func, function)
    for key in keys:
        await connection.execute(select(lock(func.hashtextextended(key, 0))))
