"""Pieces of work that end at the same moment share one transaction.

Nobody waits for company: whoever comes while a transaction is under way is in the next one, and the first of
those leads it. The hand that leads owns the transaction, so there is no task that nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from shared.database.engine import OutcomeUnknown
from shared.inbox.ending import Ending
from shared.kernel.errors import Transient, Unavailable

log = structlog.get_logger()

Commit = Callable[[Sequence[Ending]], Awaitable[set[int]]]


class _Turn(Enum):
    LEAD = auto()  # take who waits, and end all of them
    ALONE = auto()  # the transaction failed as a whole: nobody shall pay for a neighbour
    LET_IN = auto()
    TOO_LATE = auto()


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that ends. Its `turn` is done as well when its hand was cancelled."""

    ending: Ending
    turn: asyncio.Future[_Turn | Transient] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def call(self, turn: _Turn | Transient) -> None:
        if not self.turn.done():
            self.turn.set_result(turn)

    @property
    def is_called_to_lead(self) -> bool:
        return self.turn.done() and not self.turn.cancelled() and self.turn.result() is _Turn.LEAD


@dataclass(slots=True)
class _Lane:
    """Those of one type of event: they write to the same tables, in the same way."""

    waiting: list[_Waiting] = field(default_factory=list)
    is_led: bool = False

    def take(self, leader: _Waiting, at_most: int) -> list[_Waiting]:
        """Take those that end in the leader's manner out of the queue, and the leader with them."""
        manner = leader.ending.manner
        company = [each for each in self.waiting if each.ending.manner is manner]
        company = company[: at_most - 1]
        self.waiting = [each for each in self.waiting if each not in company]
        return [leader, *company]

    def hand_over(self) -> None:
        """Let the next one lead, if there is one."""
        self.waiting = [each for each in self.waiting if not each.turn.done()]
        self.is_led = bool(self.waiting)
        if self.is_led:
            self.waiting.pop(0).call(_Turn.LEAD)


class Together:
    """Ends pieces of work, those of the same moment in one transaction."""

    def __init__(self, commit: Commit, *, at_most: int) -> None:
        """`commit` ends what it is given in one transaction, and returns the rows that were let in."""
        self._commit = commit
        self._at_most = at_most
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)

    async def join(self, ending: Ending) -> bool:
        """End one, perhaps with others. Return whether its token was still valid.

        Raises Unavailable and OutcomeUnknown for all of a transaction; what a write raises for its own alone.
        """
        if self._at_most == 1:
            return await self.alone(ending)
        lane = self._lanes[ending.claim.row.type]
        own = _Waiting(ending)
        turn = await self._queue(lane, own) if lane.is_led else _Turn.LEAD
        if turn is _Turn.LEAD:
            turn = await self._lead(lane, own)
        if turn is _Turn.ALONE:
            return await self.alone(ending)
        if isinstance(turn, Transient):
            raise type(turn)(turn.message) from turn
        return turn is _Turn.LET_IN

    async def alone(self, ending: Ending) -> bool:
        """End one in a transaction of its own. Return whether its token was still valid."""
        return ending.claim.row.id in await self._commit([ending])

    async def _queue(self, lane: _Lane, own: _Waiting) -> _Turn | Transient:
        lane.waiting.append(own)
        try:
            return await own.turn
        except asyncio.CancelledError:
            if own.is_called_to_lead:
                lane.hand_over()
            raise

    async def _lead(self, lane: _Lane, own: _Waiting) -> _Turn | Transient:
        lane.is_led = True
        try:
            await asyncio.sleep(0)  # no time: what has just been handled as well comes to the queue
            return await self._end(lane.take(own, self._at_most))
        finally:
            lane.hand_over()

    async def _end(self, batch: list[_Waiting]) -> _Turn | Transient:
        """End a batch, and tell each of it what became of it; the leader by returning it."""
        endings = [each.ending for each in batch]
        try:
            # As a value: what one of them raises is no reason to leave the others without an answer.
            (result,) = await asyncio.gather(self._commit(endings), return_exceptions=True)
        except asyncio.CancelledError:
            for each in batch:
                each.call(OutcomeUnknown("who led the transaction was stopped"))
            raise
        turns = [_turn_of(each.ending, result) for each in batch]
        for each, turn in zip(batch, turns, strict=True):
            each.call(turn)
        if turns[0] is _Turn.ALONE:
            log.info("work.ended_apart", pieces=len(batch), reason=repr(result))
        return turns[0]


def _turn_of(ending: Ending, result: set[int] | BaseException) -> _Turn | Transient:
    if isinstance(result, (Unavailable, OutcomeUnknown)):
        return result
    if isinstance(result, BaseException):
        return _Turn.ALONE
    return _Turn.LET_IN if ending.claim.row.id in result else _Turn.TOO_LATE
