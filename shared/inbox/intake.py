"""Whether a subscription takes work. While something that it needs is away, it does not.

Work that finds a dependency away would otherwise burn its attempts on that, and so would all that waits
behind it. Open, until an outage; paused for a while; then one hand tries first; open again, or paused longer.
Work that is being done goes on meanwhile. The reasons: docs/decisions/0006.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from shared.kernel.clock import Clock
from shared.kernel.errors import Unavailable
from shared.observability.metrics import INBOX_PAUSED

log = structlog.get_logger()

FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS = 30_000  # what a dependency that came back may stay unused
SEVERAL = 3  # different pieces of work, one after the other: no longer the fault of one object

# Returns what is away, by part, with what it says; empty when all is well. Bounded in time.
Diagnose = Callable[[], Awaitable[Mapping[str, str]]]

# A hand that ends so has shown that its dependencies are there.
_GOT_THROUGH = frozenset({"done", "later", "dead"})


async def all_is_well() -> Mapping[str, str]:
    """Know of nothing that is away."""
    return {}


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is taken before `until_ms` (monotonic). `why` names what is away."""

    until_ms: int
    length_ms: int
    why: str


def next_pause(before: Pause | None, *, now_ms: int, why: str, dice: float) -> Pause:
    """Pause twice as long as before. `dice` (0 to 1) takes away up to a quarter of the wait."""
    length_ms = min(before.length_ms * 2, LONGEST_PAUSE_MS) if before else FIRST_PAUSE_MS
    return Pause(now_ms + round(length_ms * (1 - dice / 4)), length_ms, why)


class Intake:
    """The valve of one subscription in one process."""

    def __init__(self, queue: str, clock: Clock, diagnose: Diagnose = all_is_well) -> None:
        """Begin open."""
        self.queue = queue
        self._clock = clock
        self._diagnose = diagnose
        self._pause: Pause | None = None
        self._half_open = False  # the pause is over and nothing is known to be away: one hand tries
        self._scout: int | None = None  # the row which that hand works
        self._found_away: set[int] = set()  # rows in a row, none of which got through
        self._judging = asyncio.Lock()
        self._gauge = INBOX_PAUSED.labels(queue)
        self._gauge.set(0)

    @property
    def is_limited(self) -> bool:
        """Whether less is taken than there are hands for."""
        return self._pause is not None

    @property
    def paused_because(self) -> str | None:
        """Say why nothing is taken at the moment; None when something is."""
        return self._pause.why if self._pause and not self._half_open else None

    async def room(self, free: int) -> int:
        """Return how many of `free` hands may begin something now: all, one, or none."""
        if self._pause is None:
            return free
        if not self._half_open:
            if self._clock.monotonic_ms() < self._pause.until_ms:
                return 0
            if away := await self._diagnose():
                self._shut(_told(away))
                return 0
            self._half_open = True
            self._gauge.set(0)
        return min(free, 1) if self._scout is None else 0

    def begin(self, row_id: int) -> None:
        """Note which row is worked first after a pause."""
        if self._half_open and self._scout is None:
            self._scout = row_id

    async def is_outage(self, row_id: int, error: Unavailable) -> int | None:
        """Return for how many milliseconds to leave the work alone, or None when it is its own fault.

        A dependency that is away by its own account, or that several pieces of work in a row found away, is
        an outage. A single object that cannot be had while its store is there is not.
        """
        async with self._judging:
            if self._pause is None:
                self._found_away.add(row_id)
            if self._pause is None or row_id == self._scout:
                away = await self._diagnose()
                if not away and self._pause is None and len(self._found_away) < SEVERAL:
                    return None
                self._shut(_told(away) or str(error))
            assert self._pause is not None  # shut just now, or before
            return max(FIRST_PAUSE_MS, self._pause.until_ms - self._clock.monotonic_ms())

    def ended(self, row_id: int, status: str) -> None:
        """Learn how a hand ended."""
        got_through = status in _GOT_THROUGH
        if self._pause is None:
            if got_through:
                self._found_away.clear()
        elif row_id == self._scout:
            self._scout = None
            if got_through:
                self._open()

    def _shut(self, why: str) -> None:
        now_ms = self._clock.monotonic_ms()
        dice = random.random()  # noqa: S311  # jitter is no secret
        self._pause = next_pause(self._pause, now_ms=now_ms, why=why, dice=dice)
        self._half_open = False
        self._scout = None
        self._gauge.set(1)
        log.error("inbox.paused", queue=self.queue, away=why, again_in_ms=self._pause.until_ms - now_ms)

    def _open(self) -> None:
        self._pause = None
        self._half_open = False
        self._found_away.clear()
        log.info("inbox.resumed", queue=self.queue)


def _told(away: Mapping[str, str]) -> str:
    return "; ".join(f"{part}: {reason}" for part, reason in away.items())
