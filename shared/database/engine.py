"""One way to read and one way to write, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, TypeVarTuple, overload

from sqlalchemy import ColumnElement, CursorResult, Dialect, Executable
from sqlalchemy.sql.selectable import TypedReturnsRows

from shared.kernel.errors import Transient

T = TypeVar("T")
Columns = TypeVarTuple("Columns")

# Of one row, or of one row each.
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Connection(Protocol):
    """What a unit or a reader speaks to: SQLAlchemy's words, whatever thread or driver is behind."""

    @property
    def dialect(self) -> Dialect: ...

    @overload
    async def execute(  # type: ignore[overload-overlap]  # as SQLAlchemy declares it: the narrower one is first
        self, statement: TypedReturnsRows[*Columns], parameters: Parameters | None = None, /
    ) -> CursorResult[*Columns]: ...

    @overload
    async def execute(
        self, statement: Executable, parameters: Parameters | None = None, /
    ) -> CursorResult[Any]: ...

    async def execute(
        self, statement: Executable, parameters: Parameters | None = None, /
    ) -> CursorResult[Any]:
        """Execute a statement once, or once for each row of parameters."""
        ...


Unit = Callable[[Connection], Awaitable[T]]


class OutcomeUnknown(Transient):
    """The connection was lost during COMMIT: it may have happened. Read again before doing anything."""


class Database(Protocol):
    """A database that is open. Made by `shared.database.opening.open_database`."""

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        ...

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """Run `unit` in one transaction and commit it: all of it, or nothing.

        On SQLite units that wait together share one commit, each in a savepoint of its own; they run in the
        writer's thread, where there is no event loop: one that waits for anything else is a Bug.
        Serialisation failures, deadlocks and locks are retried, so a unit may run more than once; it does
        nothing but speak to its connection. `urgent` is for heartbeats: they wait behind nobody.
        Raises Unavailable when the database is away (nothing was committed), OutcomeUnknown when it went away
        during COMMIT; whatever the unit raises undoes the unit alone.
        """
        ...

    def read(self) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection that reads what is committed and cannot write. Raises Unavailable."""
        ...

    def now_sql(self) -> ColumnElement[int]:
        """Return the database's clock as an expression, for a statement that is executed at once."""
        ...

    async def now_ms(self) -> int:
        """Return the database's own clock, by which leases go. Raises Unavailable."""
        ...

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever a transaction that notified the channel was committed. Until cancelled.

        A hint, never a promise: what is missed while the connection is away is found by the next poll.
        Embedded there is only this process, which knows what it commits.
        """
        ...

    async def give_back_space(self, *, pages: int = 500) -> None:
        """Return up to `pages` free pages to the file system, where the database does not do it itself."""
        ...

    async def close(self) -> None:
        """Finish the writes that wait, and let go of every connection."""
        ...
