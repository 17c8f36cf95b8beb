"""Old rows go in slices, so that no writer waits for all of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Select, delete, select

from shared.database.engine import Connection, Database

SLICE_ROWS = 500


async def drop_rows(database: Database, key: Column[Any], old: Select[Any]) -> int:
    """Delete the rows whose `key` is among what `old` selects; return how many. Raises Unavailable."""
    # Materialized: a subquery that locks rows and is evaluated twice chooses others the second time.
    chosen = old.limit(SLICE_ROWS).cte("old").prefix_with("MATERIALIZED", dialect="postgresql")
    dropping = delete(key.table).where(key.in_(select(chosen))).returning(key)

    async def unit(connection: Connection) -> int:
        return len((await connection.execute(dropping)).all())

    dropped = 0
    while True:
        rows = await database.write(unit)
        dropped += rows
        if rows:
            await database.give_back_space()
        if rows < SLICE_ROWS:
            return dropped
