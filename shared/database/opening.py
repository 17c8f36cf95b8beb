"""An address becomes a database that is open."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from shared.database.engine import Database
from shared.database.postgresql import PostgresqlDatabase
from shared.database.sqlite import SqliteDatabase
from shared.kernel.clock import Clock
from shared.kernel.errors import Refused

_EXAMPLE = "for example sqlite:////var/lib/spool/spool.db or postgresql://spool@db.internal/spool"


async def open_database(url: str, *, clock: Clock, connections: int = 16) -> Database:
    """Open `sqlite:///file` or `postgresql://user@host/name`.

    `connections` should be at least the number of hands: a smaller pool costs two thirds of the rate.
    Raises Refused for an address that is neither, Unavailable.
    """
    if is_sqlite(url):
        return await SqliteDatabase.open(sqlite_path(url), clock=clock)
    return PostgresqlDatabase(url, connections=connections)


def is_sqlite(url: str) -> bool:
    """Tell SQLite from PostgreSQL. Raises Refused."""
    try:
        name = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise Refused("the database address is not a URL", hint=_EXAMPLE) from error
    if name not in ("sqlite", "postgresql"):
        raise Refused(f"Spool does not know the database {name!r}", hint=_EXAMPLE)
    return name == "sqlite"


def sqlite_path(url: str) -> Path:
    """Return the file that `sqlite:///relative` or `sqlite:////absolute` names. Raises Refused."""
    name = make_url(url).database
    if not name or name == ":memory:":
        raise Refused("the SQLite address names no file", hint=_EXAMPLE)
    return Path(name)
