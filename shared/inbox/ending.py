"""The ways in which a claim ends, and the statement of each: the fence that lets in only valid tokens.

A statement ends as many claims as are given, and returns those whose token was still valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, String, and_, case, func, select, update
from sqlalchemy.types import TypeEngine

from shared.database.engine import Connection, Database
from shared.database.row_lists import RowList
from shared.database.tables import inbox
from shared.events.envelope import Event
from shared.inbox.claims import Claim
from shared.inbox.outcome import Write
from shared.inbox.row import DEAD, DONE, READY, WORKING


class Manner(StrEnum):
    """How a claim ends."""

    DONE = "done"
    DEAD = "dead"
    LATER = "later"  # it waits for a time or a wake
    AGAIN = "again"  # it failed
    RELEASED = "released"  # as if it had not been taken


@dataclass(frozen=True, slots=True)
class Ending:
    """What is to be committed with the end of one claim. `values` are those of its manner, in their order."""

    claim: Claim
    manner: Manner
    values: tuple[object, ...] = ()
    writes: tuple[Write, ...] = ()
    events: tuple[tuple[Event, bool], ...] = ()  # each with whether somebody has to hear it
    wake_keys: tuple[str, ...] = ()  # to be registered
    forgets_keys: bool = False


_Values = Mapping[str, object]


def _done(row: FromClause, now: ColumnElement[int]) -> _Values:
    return {
        "state": DONE,
        "body": None,
        "done_ms": now,
        "lease_until_ms": None,
        "outcome": row.c.outcome,
        "reason": None,
        "failing_since_ms": None,
    }


def _dead(row: FromClause, now: ColumnElement[int]) -> _Values:
    return {
        "state": DEAD,
        "done_ms": now,
        "lease_until_ms": None,
        "outcome": row.c.outcome,
        "reason": row.c.reason,
        "traceback_digest": row.c.digest,
    }


def _later(row: FromClause, _now: ColumnElement[int]) -> _Values:
    """Let it sleep, unless it was woken since it was claimed: then it is ready at once."""
    woken = inbox.c.wake_count != row.c.wake_count
    return {
        "state": READY,
        "attempt": inbox.c.attempt - 1,
        "lease_until_ms": None,
        "not_before_ms": case((woken, None), else_=row.c.until_ms),
        "waiting": case((woken, False), else_=True),
        "reason": row.c.reason,
        "failing_since_ms": None,
    }


def _again(row: FromClause, now: ColumnElement[int]) -> _Values:
    return {
        "state": READY,
        "attempt": inbox.c.attempt - row.c.given_back,
        "lease_until_ms": None,
        "not_before_ms": now + row.c.delay_ms,
        "failing_since_ms": func.coalesce(inbox.c.failing_since_ms, now),
        "reason": row.c.reason,
        "traceback_digest": row.c.digest,
    }


def _released(_row: FromClause, _now: ColumnElement[int]) -> _Values:
    return {"state": READY, "attempt": inbox.c.attempt - 1, "lease_until_ms": None, "worker": None}


_MANNERS: dict[Manner, tuple[dict[str, TypeEngine[Any]], Callable[[FromClause, ColumnElement[int]], _Values]]]
_MANNERS = {
    Manner.DONE: ({"outcome": String()}, _done),
    Manner.DEAD: ({"outcome": String(), "reason": String(), "digest": String()}, _dead),
    Manner.LATER: ({"until_ms": BigInteger(), "wake_count": BigInteger(), "reason": String()}, _later),
    Manner.AGAIN: (
        {"delay_ms": BigInteger(), "given_back": BigInteger(), "reason": String(), "digest": String()},
        _again,
    ),
    Manner.RELEASED: ({}, _released),
}


class Fence:
    """Ends claims, as many at once as there are; whoever comes too late changes nothing."""

    def __init__(self, database: Database) -> None:
        self._statements = {manner: _fence(database, manner) for manner in Manner}

    async def let_in(self, connection: Connection, endings: Sequence[Ending]) -> set[int]:
        """End claims, all in the same manner. Return the rows of those that were still valid."""
        rows = [
            (*ending.claim.owner, *ending.values) for ending in sorted(endings, key=lambda e: e.claim.row.id)
        ]
        ending, bind = self._statements[endings[0].manner]
        return set((await connection.execute(ending, bind(rows))).scalars())


def _fence(database: Database, manner: Manner) -> tuple[Any, Callable[..., Mapping[str, Any]]]:
    columns, values = _MANNERS[manner]
    listed = RowList(database.dialect, "ending", id=BigInteger(), token=BigInteger(), **columns)
    # Locked by id, as `row.locked` says.
    held = (
        select(*listed.table.c)
        .join(inbox, and_(inbox.c.id == listed.table.c.id, inbox.c.token == listed.table.c.token))
        .where(inbox.c.state == WORKING)
        .order_by(listed.table.c.id)
        .with_for_update(of=inbox)
        .cte("held")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    ended = update(inbox).where(inbox.c.id == held.c.id).values(**values(held, database.now_sql()))
    return ended.returning(inbox.c.id), listed.bind
