"""Reading a SQLite file: a few connections that cannot write, and the threads in which they are used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, Executable
from sqlalchemy.exc import DBAPIError

from shared.database.cancellation import to_the_end
from shared.database.engine import Parameters
from shared.database.sqlite_file import BUSY_TIMEOUT_MS, translated
from shared.kernel.errors import Unavailable

CONNECTIONS = 8


class Readers:
    """Lends connections, each to one caller at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_workers=CONNECTIONS, thread_name_prefix="sqlite-reader")
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Reading]:
        """Lend a connection: all its statements see the same moment. Raises Unavailable."""
        await self._wait_for_one()
        reading = Reading(self._engine, self._idle.pop() if self._idle else None, self._threads)
        try:
            yield reading
        except DBAPIError as error:
            raise translated(error) from error
        finally:
            self._free.release()
            self._take_back(reading.connection)

    def close(self) -> None:
        """Let go of what nobody uses; the rest goes when it is given back."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._threads.shutdown(wait=False)

    async def _wait_for_one(self) -> None:
        if self._closed:
            raise Unavailable("the database is closed")
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_MS / 1000):
                await self._free.acquire()
        except TimeoutError as error:
            raise Unavailable("every connection to the database is in use") from error

    def _take_back(self, connection: Connection | None) -> None:
        if connection is None:  # none could be opened, or none was needed
            return
        connection.rollback()  # of a transaction that only read: nothing to wait for
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)


class Reading:
    """A connection that is lent. A new one is opened when first asked, in the thread that answers."""

    def __init__(self, engine: Engine, connection: Connection | None, threads: ThreadPoolExecutor) -> None:
        self.connection = connection
        self._engine = engine
        self._threads = threads

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    async def execute(self, statement: Executable, parameters: Parameters | None = None, /) -> Any:
        """See `Connection.execute`. A caller that is cancelled waits until its statement has ended."""
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._threads, self._answer, statement, parameters))

    def _answer(self, statement: Executable, parameters: Parameters | None) -> Any:
        if self.connection is None:
            self.connection = self._engine.connect()
        return self.connection.execute(statement, parameters)
