"""SQLite: one connection writes, owned by one task; others read. Survives kill -9 and loss of power.

Units that wait together share one COMMIT, hence one fsync, each in a savepoint of its own. That makes
synchronous=FULL as fast as NORMAL when there is much to write (measured; see docs of the bus as well).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy import URL, BigInteger, ColumnElement, Connection, Function, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from shared.database.cancellation import to_the_end
from shared.database.engine import OutcomeUnknown, Unit
from shared.kernel.clock import Clock
from shared.kernel.errors import SpoolError, Transient, Unavailable
from shared.observability.metrics import DATABASE_WRITE_QUEUE

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000  # a backup or a person's sqlite3 shell may hold the lock for a moment
NOW_FUNCTION = "spool_now_ms"  # our clock, as SQLite knows it
UNITS_PER_COMMIT = 64  # more gains little, and a failing commit would undo more
MAX_WAITING_UNITS = 10_000  # beyond it the disk is not keeping up, and callers have to know
UNIT_TIME_LIMIT_S = 30.0  # a unit only speaks to its connection; one that hangs must not stop all writes
READERS = 8

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


class _TransactionLost(Exception):
    """A savepoint could not be closed: SQLite has rolled the whole transaction back."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A unit that waits for the writer, with the place where its caller looks for the result."""

    unit: Unit[Any]
    result: asyncio.Future[Any]
    context: Context = field(default_factory=copy_context)

    def succeed(self, value: object) -> None:
        if not self.result.done():
            self.result.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class SqliteDatabase:
    """A database in one file of this machine. One process at a time: the data directory is locked above."""

    dialect = "sqlite"

    def __init__(self, path: Path, clock: Clock) -> None:
        """Use `open`; this only prepares."""
        self._clock = clock
        self._writing = writing_engine(path)
        self._reading = _reading_engine(path)
        for engine in (self._writing, self._reading):
            event.listen(engine.sync_engine, "connect", self._teach_time)
        self._ordinary: deque[_Waiting] = deque()
        self._urgent: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, clock: Clock) -> SqliteDatabase:
        """Open or create the file. Raises Unavailable."""
        check_openable(path)
        database = cls(path, clock)
        DATABASE_WRITE_QUEUE.set_function(lambda: len(database._ordinary) + len(database._urgent))
        database._writer = asyncio.create_task(database._write_for_ever(), name="sqlite writer")
        return database

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """See `Database.write`. A caller that is cancelled once its unit runs leaves it running."""
        if self._closing or self._writer is None or self._writer.done():
            raise Unavailable("the database is closed")
        if len(self._ordinary) + len(self._urgent) >= MAX_WAITING_UNITS:
            raise Unavailable(f"more than {MAX_WAITING_UNITS} writes wait for the disk")
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future())
        (self._urgent if urgent else self._ordinary).append(waiting)
        self._arrived.set()
        result: T = await waiting.result
        return result

    def _teach_time(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.create_function(NOW_FUNCTION, 0, self._clock.now_ms)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """See `Database.read`. All statements of one `read` see the same moment."""
        try:
            async with _connected(self._reading) as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            raise _translated(error) from error

    def now_sql(self) -> ColumnElement[int]:
        # A function, not a bound value: the statement's text stays the same, and is prepared once.
        return Function(NOW_FUNCTION, type_=BigInteger)

    async def now_ms(self) -> int:
        return self._clock.now_ms()

    async def give_back_space(self, *, pages: int = 500) -> None:
        """Shorten the file by up to `pages` free pages. VACUUM would stop all writers meanwhile."""
        try:
            # The writer's own connection, between two of its transactions.
            async with _connected(self._writing) as connection:
                driver = await _driver(connection)
                # It frees one page per step, and `execute` makes one step only of what has no columns.
                await driver.executescript(f"PRAGMA incremental_vacuum({int(pages)})")
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            raise Unavailable(f"no space was given back: {error}") from error

    async def close(self) -> None:
        self._closing = True
        self._arrived.set()
        if self._writer is not None:
            await asyncio.wait({self._writer})
        DATABASE_WRITE_QUEUE.set_function(lambda: 0)
        await self._reading.dispose()
        await self._writing.dispose()

    async def _write_for_ever(self) -> None:
        try:
            while await self._next_batch():
                await self._commit(self._batch)
        finally:
            # Only a bug brings us here with callers still waiting; they must not wait for ever.
            for waiting in (*self._batch, *self._urgent, *self._ordinary):
                waiting.fail(Unavailable("the writer of the database has stopped"))

    async def _next_batch(self) -> bool:
        """Fill the batch with what waits. False when closing and nothing is left."""
        self._batch = []
        while not self._urgent and not self._ordinary:
            if self._closing:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        for queue in (self._urgent, self._ordinary):
            while queue and len(self._batch) < UNITS_PER_COMMIT:
                waiting = queue.popleft()
                if not waiting.result.done():  # a caller that gave up before its turn
                    self._batch.append(waiting)
        return True

    async def _commit(self, batch: list[_Waiting]) -> None:
        """Run a batch in one transaction; when that breaks as a whole, each unit in one of its own."""
        try:
            await self._run_together(batch)
        except (_TransactionLost, DBAPIError, PoolTimeout) as error:
            cause = error.__cause__ if isinstance(error, _TransactionLost) else error
            if len(batch) == 1:
                batch[0].fail(_translated(cause or error))
                return
            for waiting in batch:
                if not waiting.result.done():
                    await self._commit([waiting])

    async def _run_together(self, batch: list[_Waiting]) -> None:
        """Tell each unit its result. Raises when the transaction as a whole did not come to its COMMIT."""
        async with self._writing.connect() as connection:
            await connection.begin()
            driver = await _driver(connection)
            outcomes = [await _run_in_savepoint(connection, driver, waiting) for waiting in batch]
            try:
                await connection.commit()
            except DBAPIError as error:
                for waiting in batch:
                    waiting.fail(OutcomeUnknown(f"COMMIT failed: {error.orig}"))
                return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, _Failed):
                waiting.fail(outcome.error)
            else:
                waiting.succeed(outcome)


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


async def _run_in_savepoint(
    connection: AsyncConnection, driver: aiosqlite.Connection, waiting: _Waiting
) -> object:
    """Return what the unit returned, or `_Failed` with its effects undone. Raises _TransactionLost.

    The savepoint is the driver's: SQLAlchemy's costs four times the hops between threads.
    """
    outcome: object = None
    try:
        await driver.execute("SAVEPOINT unit")
        outcome = await _run(connection, waiting)
        if connection.invalidated:  # it was cancelled within a statement
            raise sqlite3.OperationalError("the connection is gone")
        if isinstance(outcome, _Failed):
            await driver.execute("ROLLBACK TO unit")
        await driver.execute("RELEASE unit")
    except sqlite3.Error as error:
        # After a full disk or an I/O error SQLite has already rolled back everything.
        raise _TransactionLost from (outcome.error if isinstance(outcome, _Failed) else error)
    return outcome


async def _run(connection: AsyncConnection, waiting: _Waiting) -> object:
    # A task, so that any error is a value here, and the caller's log context holds.
    task = asyncio.create_task(_call(waiting.unit, connection), context=waiting.context)
    _, late = await asyncio.wait({task}, timeout=UNIT_TIME_LIMIT_S)
    if late:
        task.cancel()
        await asyncio.wait({task})
        return _Failed(Transient(f"a write took longer than {UNIT_TIME_LIMIT_S:.0f} s"))
    if task.cancelled():
        return _Failed(Transient("a write was cancelled from within"))
    error = task.exception()
    return _Failed(_translated(error)) if error is not None else task.result()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a connection. A caller that is cancelled while it is being opened waits until it is given back.

    Cut off in the middle, SQLAlchemy and aiosqlite both forget it, and its file stays open.
    """
    async with AsyncExitStack() as stack:
        yield await to_the_end(stack.enter_async_context(engine.connect()))


async def _driver(connection: AsyncConnection) -> aiosqlite.Connection:
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, aiosqlite.Connection)
    return driver


async def _call(unit: Unit[T], connection: AsyncConnection) -> T:
    return await unit(connection)


def _translated(error: BaseException) -> BaseException:
    """Say "away" in Spool's words; leave every other error as it is."""
    if isinstance(error, SpoolError):
        return error
    if isinstance(error, PoolTimeout):
        return Unavailable("every connection to the database is in use")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Unavailable(f"SQLite: {error.orig}")
    origin = error.orig if isinstance(error, DBAPIError) else error
    # Extended codes carry the plain one in their low byte.
    if isinstance(origin, sqlite3.Error) and getattr(origin, "sqlite_errorcode", 0) & 0xFF in _AWAY:
        return Unavailable(f"SQLite: {origin}")
    return error


def check_openable(path: Path) -> None:
    """Create the file if need be. Raises Unavailable: a driver's thread would report it too late."""
    try:
        sqlite3.connect(path).close()
    except sqlite3.Error as error:
        raise Unavailable(f"SQLite cannot open {path}: {error}") from error


def writing_engine(path: Path) -> AsyncEngine:
    """Return an engine of one connection, whose transactions take the write lock when they begin."""
    engine = _engine(path, connections=1)

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
        _pragmas(
            connection,
            "auto_vacuum = INCREMENTAL",  # first: it only takes effect before the file has a page
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
        )

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could fail in the middle: take the lock now.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _reading_engine(path: Path) -> AsyncEngine:
    engine = _engine(path, connections=READERS)

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
        _pragmas(connection, f"busy_timeout = {BUSY_TIMEOUT_MS}", "query_only = ON")

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _engine(path: Path, *, connections: int) -> AsyncEngine:
    return create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # BEGIN is ours: the driver's own comes late, and never as IMMEDIATE.
        connect_args={"isolation_level": None},
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_MS / 1000,
    )


def _pragmas(connection: Any, *pragmas: str) -> None:  # a DBAPI connection has no type in SQLAlchemy
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
