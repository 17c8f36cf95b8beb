"""Old rows go in slices, so that no writer waits for all of them."""

from __future__ import annotations

from sqlalchemy import Select, Table, delete

from shared.database.engine import Connection, Database

SLICE_ROWS = 500


async def drop_rows(database: Database, table: Table, old: Select[tuple[int]]) -> int:
    """Delete the rows of `table` whose ids `old` selects; return how many. Raises Unavailable."""
    chosen = old.limit(SLICE_ROWS)

    async def unit(connection: Connection) -> int:
        return (await connection.execute(delete(table).where(table.c.id.in_(chosen)))).rowcount

    dropped = 0
    while True:
        rows = await database.write(unit)
        dropped += rows
        if rows < SLICE_ROWS:
            break
    if dropped:
        await database.give_back_space()
    return dropped
