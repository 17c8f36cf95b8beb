"""One way to read and one way to write, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class Database(Protocol):
    """A database that is open. Made by `shared.runtime.wiring.open_database`."""

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        ...

    async def write(self, unit: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `unit` in one transaction and commit it: all of it, or nothing.

        On SQLite units that wait together share one commit, each in a savepoint of its own.
        Serialisation failures, deadlocks and locks are retried, so a unit may run more than once.
        Raises Unavailable when the database is away; whatever the unit raises undoes the unit alone.
        """
        ...

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection for reading what is committed. Raises Unavailable."""
        ...

    async def now_ms(self) -> int:
        """The database's own clock, by which leases go."""
        ...

    async def close(self) -> None: ...
