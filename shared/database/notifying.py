"""Telling other processes that there is something to look at, once a transaction is committed."""

from __future__ import annotations

from sqlalchemy import func, select

from shared.database.engine import Connection

READY_WORK = "spool_ready_work"  # rows of the inbox that another process may have a hand for


async def notify(connection: Connection, channel: str) -> None:
    """Let those who listen look when this transaction commits. However often, they hear it once.

    A COMMIT that notifies waits for the others that do, in the whole cluster: only for what is rare, and for
    what the committing process may leave to others. What it told in the outbox its own relay publishes.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_notify(channel, "")))
