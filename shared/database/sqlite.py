"""SQLite: one thread writes, others read. Survives kill -9 and loss of power."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import ColumnElement

from shared.database.engine import Connection, Unit
from shared.database.now import NOW_FUNCTION, now_by
from shared.database.sqlite_file import reading_engine, teach, writing_engine
from shared.database.sqlite_reader import Readers
from shared.database.sqlite_writer import UNIT_LIMIT_S, Writer
from shared.kernel.clock import Clock

T = TypeVar("T")


class SqliteDatabase:
    """A database in one file of this machine. One process at a time: the data directory is locked above."""

    dialect = "sqlite"

    def __init__(self, writer: Writer, readers: Readers, clock: Clock) -> None:
        """Take over what `open` made."""
        self._writer = writer
        self._readers = readers
        self._clock = clock

    @classmethod
    async def open(cls, path: Path, *, clock: Clock, unit_limit_s: float = UNIT_LIMIT_S) -> SqliteDatabase:
        """Open or create the file. Raises Unavailable."""
        writing, reading = writing_engine(path), reading_engine(path)
        for engine in (writing, reading):
            teach(engine, NOW_FUNCTION, clock.now_ms)
        return cls(await Writer.open(writing, unit_limit_s=unit_limit_s), Readers(reading), clock)

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """See `Database.write`. A caller that is cancelled once its unit runs leaves it running."""
        return await self._writer.write(unit, urgent=urgent)

    def read(self) -> AbstractAsyncContextManager[Connection]:
        """See `Database.read`. All statements of one `read` see the same moment."""
        return self._readers.lend()

    def now_sql(self) -> ColumnElement[int]:
        return now_by(self.dialect)

    async def now_ms(self) -> int:
        return self._clock.now_ms()

    async def listen(self, _channel: str, _heard: Callable[[], None]) -> None:
        """Hear nothing: nobody else writes."""
        await asyncio.Event().wait()

    async def give_back_space(self, *, pages: int = 500) -> None:
        """Shorten the file by up to `pages` free pages. VACUUM would stop all writers meanwhile."""
        await self._writer.give_back_space(pages)

    async def close(self) -> None:
        await self._writer.close()
        self._readers.close()
