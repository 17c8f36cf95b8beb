"""The one writer of a SQLite file: a thread that runs units together, and the queue before it.

Units that wait together share one COMMIT, hence one fsync, each in a savepoint of its own. That makes
synchronous=FULL as fast as NORMAL when there is much to write. And they share the way to the thread and back:
in it a unit's statements are answered at once, so that it runs to its end without an event loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from shared.database.cancellation import to_the_end
from shared.database.engine import OutcomeUnknown, Unit
from shared.database.sqlite_file import STEPS_BETWEEN_LOOKS, Speaking, TimeLimit, driver_of, translated
from shared.kernel.errors import Bug, Unavailable
from shared.observability.metrics import DATABASE_WRITE_QUEUE

T = TypeVar("T")

UNITS_PER_COMMIT = 64  # more gains little, and a failing commit would undo more
UNIT_LIMIT_S = 30.0  # a unit only speaks to its connection; one that hangs must not stop all writes
MAX_WAITING_UNITS = 10_000  # beyond it the disk is not keeping up, and callers have to know


class _TransactionLost(Exception):
    """A savepoint could not be closed: SQLite has rolled the whole transaction back."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A unit that waits for the writer, with the place where its caller looks for the result."""

    unit: Unit[Any]
    result: asyncio.Future[Any]
    context: Context = field(default_factory=copy_context)

    def settle(self, outcome: _Outcome) -> None:
        if self.result.done():  # its caller was cancelled meanwhile
            return
        if outcome.error is not None:
            self.result.set_exception(outcome.error)
        else:
            self.result.set_result(outcome.value)


@dataclass(slots=True)
class _Outcome:
    """What became of a unit. Around it, takes whatever it raises: that is its caller's to know."""

    value: object = None
    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.error = translated(error)
        return True


class Writer:
    """Takes units and tells their callers what became of them. Open it with `Writer.open`."""

    def __init__(self, transactions: Transactions, thread: ThreadPoolExecutor) -> None:
        self._transactions = transactions
        self._thread = thread  # the only one that may touch `transactions`
        self._ordinary: deque[_Waiting] = deque()
        self._urgent: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._closing = False
        DATABASE_WRITE_QUEUE.set_function(lambda: self._waiting)
        self._task = asyncio.create_task(self._write_for_ever(), name="sqlite writer")

    @classmethod
    async def open(cls, engine: Engine, *, unit_limit_s: float = UNIT_LIMIT_S) -> Writer:
        """Connect. Raises Unavailable."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        loop = asyncio.get_running_loop()
        try:
            transactions = await to_the_end(loop.run_in_executor(thread, Transactions, engine, unit_limit_s))
        except DBAPIError as error:
            thread.shutdown(wait=False)
            raise Unavailable(f"SQLite cannot open {engine.url.database}: {error.orig}") from error
        return cls(transactions, thread)

    async def write(self, unit: Unit[T], *, urgent: bool) -> T:
        if self._closing or self._task.done():
            raise Unavailable("the database is closed")
        if self._waiting >= MAX_WAITING_UNITS:
            raise Unavailable(f"more than {MAX_WAITING_UNITS} writes wait for the disk")
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future())
        (self._urgent if urgent else self._ordinary).append(waiting)
        self._arrived.set()
        result: T = await waiting.result
        return result

    async def give_back_space(self, pages: int) -> None:
        """Shorten the file by up to `pages` free pages, between two transactions. Raises Unavailable."""
        if self._closing:
            raise Unavailable("the database is closed")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._transactions.give_back_space, pages)
        except sqlite3.Error as error:
            raise Unavailable(f"no space was given back: {error}") from error

    async def close(self) -> None:
        """Finish the writes that wait."""
        if self._closing:
            return
        self._closing = True
        self._arrived.set()
        await asyncio.wait({self._task})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._transactions.close)
        self._thread.shutdown(wait=False)

    @property
    def _waiting(self) -> int:
        return len(self._ordinary) + len(self._urgent)

    async def _write_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while await self._somebody_waits():
                outcomes = await loop.run_in_executor(self._thread, self._commit_who_waits)
                for waiting, outcome in zip(self._batch, outcomes, strict=True):
                    waiting.settle(outcome)
        finally:
            # Only a bug brings us here with callers still waiting; they must not wait for ever.
            for waiting in (*self._batch, *self._urgent, *self._ordinary):
                waiting.settle(_Outcome(error=Unavailable("the writer of the database has stopped")))

    async def _somebody_waits(self) -> bool:
        """Wait for that. False when closing and nothing is left."""
        self._batch = []
        while not self._waiting:
            if self._closing:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    def _commit_who_waits(self) -> list[_Outcome]:
        """Take a batch and commit it, in the writer's thread.

        Taken here and not by the loop: until this thread has its turn, the loop may bring more.
        """
        for queue in (self._urgent, self._ordinary):
            while queue and len(self._batch) < UNITS_PER_COMMIT:
                waiting = queue.popleft()
                if not waiting.result.done():  # a caller that gave up before its turn
                    self._batch.append(waiting)
        return self._transactions.commit(self._batch)


class Transactions:
    """The writing connection. Synchronous: only the writer's thread calls it."""

    def __init__(self, engine: Engine, unit_limit_s: float) -> None:
        """Connect. Raises SQLAlchemy's DBAPIError."""
        self._limit = TimeLimit(unit_limit_s)
        self._connection: Connection = engine.connect()
        self._driver = driver_of(self._connection)
        self._driver.set_progress_handler(self._limit.is_over, STEPS_BETWEEN_LOOKS)
        self._speaking = Speaking(self._connection, self._limit)

    def commit(self, batch: Sequence[_Waiting]) -> list[_Outcome]:
        """Run a batch in one transaction; when that breaks as a whole, each unit in one of its own."""
        try:
            return self._commit_together(batch)
        except (_TransactionLost, DBAPIError) as error:
            cause = error.__cause__ if isinstance(error, _TransactionLost) else error
            if len(batch) == 1:
                return [_Outcome(error=translated(cause or error))]
        return [outcome for waiting in batch for outcome in self.commit([waiting])]

    def give_back_space(self, pages: int) -> None:
        # It frees one page per step, and `execute` makes one step only of what has no columns.
        self._driver.executescript(f"PRAGMA incremental_vacuum({int(pages)})")

    def close(self) -> None:
        self._connection.close()

    def _commit_together(self, batch: Sequence[_Waiting]) -> list[_Outcome]:
        """Return what became of each. Raises when the transaction as a whole did not come to its COMMIT."""
        try:
            self._connection.begin()
            outcomes = [self._run_in_savepoint(waiting) for waiting in batch]
            try:
                self._connection.commit()
            except DBAPIError as error:
                return [_Outcome(error=OutcomeUnknown(f"COMMIT failed: {error.orig}")) for _ in batch]
            return outcomes
        finally:
            # Of a transaction that failed to commit SQLAlchemy does not tell the driver.
            self._connection.rollback()
            self._driver.rollback()

    def _run_in_savepoint(self, waiting: _Waiting) -> _Outcome:
        """Return the unit's outcome, its effects undone if it failed. Raises _TransactionLost."""
        outcome = _Outcome()
        try:
            self._driver.execute("SAVEPOINT unit")
            self._limit.restart()
            with outcome:
                outcome.value = waiting.context.run(_drive, waiting.unit, self._speaking)
            if outcome.error is not None:
                self._driver.execute("ROLLBACK TO unit")
            self._driver.execute("RELEASE unit")
        except sqlite3.Error as error:
            # After a full disk or an I/O error SQLite has already rolled back everything.
            raise _TransactionLost from (outcome.error or error)
        return outcome


def _drive(unit: Unit[T], connection: Speaking) -> T:
    """Run a unit to its end. Its statements are answered at once, so it never has to be resumed."""
    running = unit(connection).__await__()
    try:
        next(running)
    except StopIteration as end:
        result: T = end.value
        return result
    raise Bug("a unit does nothing but speak to its connection, and this one waited for something else")
