"""A SQLite file as SQLAlchemy opens it: one way for the writer, one for readers, and what its errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, Dialect, Engine, Executable, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from shared.database.engine import Parameters
from shared.kernel.errors import SpoolError, Transient, Unavailable

BUSY_TIMEOUT_MS = 5_000  # a backup or a person's sqlite3 shell may hold the lock for a moment
STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine, a millisecond or so: then somebody looks at the clock

# Codes of https://www.sqlite.org/rescode.html that say "not now" rather than "not like this".
_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


class _Cursor(sqlite3.Cursor):
    """Fetches at once: a statement is over when `execute` returns, in the thread that ran it.

    One whose rows nobody asks for would otherwise stay open, and SQLite commits nothing meanwhile.
    """

    _rows: list[Any]

    def execute(self, *statement: Any) -> _Cursor:
        super().execute(*statement)
        self._rows = super().fetchall()[::-1] if self.description else []
        return self

    def fetchone(self) -> Any:
        return self._rows.pop() if self._rows else None

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        return [self._rows.pop() for _ in range(min(size or 1, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows[::-1], []
        return rows


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class TimeLimit:
    """How long one unit may keep the connection. SQLite itself asks while a statement runs."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._until_s = float("inf")

    def restart(self) -> None:
        self._until_s = time.monotonic() + self._limit_s

    def is_over(self) -> bool:
        return time.monotonic() > self._until_s


class Speaking:
    """What a unit speaks to in the writer's thread: its words, answered at once."""

    def __init__(self, connection: Connection, limit: TimeLimit) -> None:
        self._connection = connection
        self._limit = limit

    @property
    def dialect(self) -> Dialect:
        return self._connection.dialect

    async def execute(self, statement: Executable, parameters: Parameters | None = None, /) -> Any:
        """See `Connection.execute`. Raises Transient when the unit has taken too long."""
        if self._limit.is_over():
            raise took_too_long()
        result: CursorResult[Any] = self._connection.execute(statement, parameters)
        return result


def writing_engine(path: Path) -> Engine:
    """Return an engine whose transactions take the write lock when they begin."""
    engine = _engine(path)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _entry: object) -> None:
        _pragmas(
            connection,
            "auto_vacuum = INCREMENTAL",  # first: it only takes effect before the file has a page
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
        )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could fail in the middle: take the lock now.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path) -> Engine:
    """Return an engine whose connections cannot write."""
    engine = _engine(path)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _entry: object) -> None:
        _pragmas(connection, f"busy_timeout = {BUSY_TIMEOUT_MS}", "query_only = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def teach(engine: Engine, function: str, answer: Callable[[], int]) -> None:
    """Let every connection of `engine` know an SQL function without arguments."""

    @event.listens_for(engine, "connect")
    def _teach(connection: sqlite3.Connection, _entry: object) -> None:
        connection.create_function(function, 0, answer, deterministic=True)


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def translated(error: BaseException) -> BaseException:
    """Say "away" in Spool's words; leave every other error as it is."""
    if isinstance(error, SpoolError):
        return error
    origin = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(origin, sqlite3.Error):
        return error
    code = (
        getattr(origin, "sqlite_errorcode", 0) & 0xFF
    )  # extended ones carry the plain one in their low byte
    if code == sqlite3.SQLITE_INTERRUPT:
        return took_too_long()
    return Unavailable(f"SQLite: {origin}") if code in _AWAY else error


def took_too_long() -> Transient:
    return Transient("a write took longer than a unit may")


def _engine(path: Path) -> Engine:
    return create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,  # whoever connects keeps the connection
        connect_args={
            "factory": _Connection,
            "isolation_level": None,  # BEGIN is ours: the driver's own comes late, and never as IMMEDIATE
            "check_same_thread": False,  # one thread at a time, and not always the same
        },
    )


def _pragmas(connection: sqlite3.Connection, *pragmas: str) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()
