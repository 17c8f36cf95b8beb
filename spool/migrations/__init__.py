"""One linear history of all tables: expand first, contract a release later, so that two versions run at once.

`spool migrate` runs it, and the embedded default does at its start. Needs no alembic.ini.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import postgresql, sqlite
from shared.database.opening import is_sqlite, sqlite_path
from shared.kernel.errors import Unavailable

# Any number will do, as long as every version of Spool takes the same: containers that start together
# would otherwise make the same table twice.
MIGRATION_LOCK = 7_305_411_920


async def migrate(database_url: str, *, revision: str = "head") -> None:
    """Bring the tables up to `revision`, in one transaction. Repeating it changes nothing.

    Raises Refused for an address that is no database, Unavailable when it does not answer.
    """
    engine = _engine(database_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, revision)
    except (DBAPIError, OSError) as error:
        raise Unavailable(f"the tables could not be migrated: {error}") from error
    finally:
        await engine.dispose()


def _engine(database_url: str) -> AsyncEngine:
    if is_sqlite(database_url):
        path = sqlite_path(database_url)
        sqlite.check_openable(path)
        return sqlite.writing_engine(path)
    return postgresql.engine(database_url, connections=1)


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    command.upgrade(configuration(connection), revision)


def configuration(connection: Connection) -> Config:
    """Return alembic's configuration for a connection whose transaction the caller ends."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
