"""What a handler returns, and what it is given to do its work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shared.database.engine import Connection
from shared.events.envelope import EventData
from shared.kernel.errors import Transient

Write = Callable[[Connection], Awaitable[None]]


class WorldMoved(Transient):
    """A write found that what the handler decided upon has changed: the work is done again."""


@dataclass(frozen=True, slots=True, init=False)
class Done:
    """It is decided: these events happened, and these writes make them true. All in one transaction."""

    events: tuple[EventData, ...]
    writes: tuple[Write, ...]

    def __init__(self, *events: EventData, writes: tuple[Write, ...] = ()) -> None:
        object.__setattr__(self, "events", events)
        object.__setattr__(self, "writes", writes)


@dataclass(frozen=True, slots=True)
class Later:
    """Not there yet: try at `until_ms`, or when one of `wake_keys` is woken, whichever comes first.

    The attempt is given back: waiting is bounded by age, not by attempts.
    """

    until_ms: int
    reason: str
    wake_keys: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Dead:
    """It can never succeed. Refusals that callers expect are events in Done, not this."""

    reason: str


Outcome = Done | Later | Dead


class Work(Protocol):
    """The piece of work that a handler is doing: a row of the inbox, claimed under a token."""

    @property
    def owner(self) -> tuple[int, int]:
        """(row, token): what an unfinished upload is journalled with."""
        ...

    @property
    def attempt(self) -> int: ...

    @property
    def waiting_since_ms(self) -> int:
        """When it came, or was last replayed, by the database's clock: what a wait is measured from."""
        ...

    async def still_ours(self) -> None:
        """Return if the claim is still valid, by the database. Raises LeaseLost."""
        ...

    async def wake_on(self, *keys: str) -> None:
        """Register wake keys before looking: what arrives between look and sleep then wakes this work."""
        ...


class LeaseLost(Transient):
    """Another worker has the claim now: whatever this one did, it must not commit."""
