"""A Spool starts on tables of its own version or of a newer one, and on no older ones."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from shared.database.engine import Connection, Database
from shared.kernel.errors import Refused
from spool.migrations import check_migrated, migrate


async def test_a_database_without_tables_is_refused_with_what_to_run(empty_url: str) -> None:
    with pytest.raises(Refused, match="does not have the tables") as refused:
        await check_migrated(empty_url)

    assert refused.value.hint == "run: spool migrate"
    await migrate(empty_url)
    await check_migrated(empty_url)


async def test_tables_of_a_newer_version_are_fine(database: Database, database_url: str) -> None:
    async def unit(connection: Connection) -> None:
        await connection.execute(text("UPDATE alembic_version SET version_num = 'of_tomorrow'"))

    await database.write(unit)

    await check_migrated(database_url)
