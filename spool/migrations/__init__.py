"""One linear history of all tables: expand first, contract a release later, so that two versions run at once.

`spool migrate` runs it, and the embedded default does at its start. Needs no alembic.ini.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.database import postgresql
from shared.database.cancellation import to_the_end
from shared.database.opening import is_sqlite, sqlite_path
from shared.database.sqlite_file import writing_engine
from shared.kernel.errors import Refused, Unavailable

T = TypeVar("T")

# Any number will do, as long as every version of Spool takes the same: containers that start together
# would otherwise make the same table twice.
MIGRATION_LOCK = 7_305_411_920


async def migrate(database_url: str, *, revision: str = "head") -> None:
    """Bring the tables up to `revision`, in one transaction. Repeating it changes nothing.

    Raises Refused for an address that is no database, Unavailable when it does not answer.
    """
    try:
        await run_on(database_url, partial(_upgrade, revision=revision))
    except (DBAPIError, OSError) as error:
        raise _no_answer("the tables could not be migrated", error) from error


async def check_migrated(database_url: str) -> None:
    """Raise Refused when the tables are older than this version, or were never made.

    Newer ones are fine: they are expanded before the version that needs them is started.
    Raises Unavailable when the database does not answer.
    """
    try:
        behind = await run_on(database_url, _is_behind)
    except (DBAPIError, OSError) as error:
        raise _no_answer("the database could not be asked for its tables", error) from error
    if behind:
        raise Refused("the database does not have the tables of this version", hint="run: spool migrate")


async def run_on(database_url: str, work: Callable[[Connection], T]) -> T:
    """Run synchronous work in one transaction on a connection of its own.

    Raises Refused for an address that is no database, SQLAlchemy's DBAPIError, OSError.
    """
    if is_sqlite(database_url):
        return await to_the_end(asyncio.to_thread(_run_on_file, sqlite_path(database_url), work))
    engine = postgresql.engine(database_url, connections=1)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _run_on_file(path: Path, work: Callable[[Connection], T]) -> T:
    with writing_engine(path).begin() as connection:
        return work(connection)


def _no_answer(what: str, error: DBAPIError | OSError) -> Unavailable:
    cause = error.orig if isinstance(error, DBAPIError) else error  # without the SQL
    return Unavailable(f"SPOOL_DATABASE: {what}: {cause}", hint="does it run, and may this user use it?")


def _is_behind(connection: Connection) -> bool:
    revision = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(configuration(connection))
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    return revision is None or revision in older


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
