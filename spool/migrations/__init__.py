"""One linear history of all tables: expand first, contract a release later, so that two versions run at once.

`spool migrate` runs it, and the embedded default does at its start. Needs no alembic.ini.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import postgresql, sqlite
from shared.database.opening import is_sqlite, sqlite_path
from shared.kernel.errors import Refused, Unavailable

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
        raise _no_answer("the tables could not be migrated", error) from error
    finally:
        await engine.dispose()


async def check_migrated(database_url: str) -> None:
    """Raise Refused when the tables are older than this version, or were never made.

    Newer ones are fine: they are expanded before the version that needs them is started.
    Raises Unavailable when the database does not answer.
    """
    engine = _engine(database_url)
    try:
        async with engine.connect() as connection:
            behind = await connection.run_sync(_is_behind)
    except (DBAPIError, OSError) as error:
        raise _no_answer("the database could not be asked for its tables", error) from error
    finally:
        await engine.dispose()
    if behind:
        raise Refused("the database does not have the tables of this version", hint="run: spool migrate")


def _no_answer(what: str, error: DBAPIError | OSError) -> Unavailable:
    cause = error.orig if isinstance(error, DBAPIError) else error  # without the SQL
    return Unavailable(f"SPOOL_DATABASE: {what}: {cause}", hint="does it run, and may this user use it?")


def _is_behind(connection: Connection) -> bool:
    revision = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(configuration(connection))
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    return revision is None or revision in older


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
