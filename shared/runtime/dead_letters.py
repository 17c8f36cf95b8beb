"""All dead letters of an installation in one list: of the inbox, of the broker, and of the outbox."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import structlog

from shared.database.engine import Connection, Database
from shared.inbox.dead_letters import (
    MAX_AT_ONCE,
    DeadFilter,
    DeadWork,
    drop,
    list_dead,
    replay,
    show_dead,
    tally,
)
from shared.kernel.clock import Clock
from shared.kernel.errors import NotFound, Refused, SpoolError, Unavailable
from shared.observability.metrics import DEAD_LETTERS, DEAD_LETTERS_AGE
from shared.outbox.refused import (
    RefusedEvent,
    RefusedFilter,
    drop_refused,
    list_refused,
    send_again,
    show_refused,
    tally_refused,
)

log = structlog.get_logger()

OBSERVE_S = 10.0
MAX_DIGITS = 18  # of a number that every database can hold
OUTBOX_PREFIX = "outbox-"  # of the ids of its letters; those of the inbox are the numbers of the work

Origin = Literal["inbox", "broker", "outbox"]
# Does something to letters of one table, and returns of each where it could not, why.
Act = Callable[[Database, Sequence[int]], Awaitable[dict[int, SpoolError]]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, wherever it lies. Times are Unix milliseconds."""

    id: str
    origin: Origin
    service: str
    consumer: str | None  # the queue; None for what was to be told
    type: str
    subject: str
    event_id: str
    source: str
    handler: str | None
    attempt: int
    worker: str | None
    outcome: str
    reason: str
    traceback_digest: str | None
    first_seen_ms: int
    failing_since_ms: int | None
    replayed_ms: int | None
    dead_since_ms: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; None lets everything through. Ages are counted from the death."""

    service: str | None = None
    origin: Origin | None = None
    consumer: str | None = None
    type: str | None = None
    subject: str | None = None
    reason: str | None = None
    older_than_ms: int | None = None
    newer_than_ms: int | None = None

    def of_inbox(self) -> DeadFilter:
        return DeadFilter(
            service=self.service,
            consumer=self.consumer,
            type=self.type,
            subject=self.subject,
            reason=self.reason,
            by_broker=None if self.origin is None else self.origin == "broker",
            older_than_ms=self.older_than_ms,
            newer_than_ms=self.newer_than_ms,
        )

    def of_outbox(self) -> RefusedFilter:
        return RefusedFilter(
            source=_source_of(self.service) if self.service else None,
            type=self.type,
            subject=self.subject,
            reason=self.reason,
            older_than_ms=self.older_than_ms,
            newer_than_ms=self.newer_than_ms,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: in the inbox and in the outbox."""

    inbox_id: int | None = None
    outbox_id: int | None = None


@dataclass(frozen=True, slots=True)
class Handled:
    """Which letters were replayed or dropped, and of each other one why not."""

    done: tuple[str, ...]
    problems: dict[str, SpoolError]


class DeadLetters:
    """The dead letters of one database."""

    def __init__(self, database: Database, *, told: Callable[[], None], changed: Callable[[], None]) -> None:
        """`told` wakes the relay, `changed` the workers."""
        self._database = database
        self._told = told
        self._changed = changed

    async def page(
        self, wanted: LetterFilter, *, after: Place = Place(), at_most: int
    ) -> tuple[list[DeadLetter], Place]:
        """Return letters, the newest first, and where the page ended. Raises Unavailable."""
        async with self._database.read() as connection:
            worked = await self._of_inbox(connection, wanted, after.inbox_id, at_most)
            told = await self._of_outbox(connection, wanted, after.outbox_id, at_most)
        both: Iterable[DeadLetter] = heapq.merge(worked, told, key=lambda letter: -letter.dead_since_ms)
        page = list(islice(both, at_most))
        return page, Place(
            _last([letter for letter in page if letter.origin != "outbox"], after.inbox_id),
            _last([letter for letter in page if letter.origin == "outbox"], after.outbox_id),
        )

    async def show(self, letter_id: str) -> tuple[DeadLetter, bytes, str | None]:
        """Return a letter, its body as it came, and its content type. Raises NotFound."""
        origin, number = _parsed(letter_id)
        async with self._database.read() as connection:
            if origin == "outbox":
                event, body = await show_refused(connection, number)
                return _told_letter(event), body, "application/cloudevents+json"
            work, body, content_type = await show_dead(connection, number)
            return _worked_letter(work), body, content_type

    async def replay(self, letter_ids: Sequence[str]) -> Handled:
        """Let letters be worked, or published, once more under their ids. Raises Unavailable."""
        handled = await self._each(letter_ids, replay, send_again)
        self._changed()
        self._told()
        return handled

    async def drop(self, letter_ids: Sequence[str]) -> Handled:
        """Let letters go with what they say. Raises Unavailable."""
        return await self._each(letter_ids, drop, drop_refused)

    async def observe(self, services: Sequence[str], clock: Clock) -> None:
        """Tell the metrics how many there are, until cancelled."""
        while True:
            try:
                for service in services:
                    await self.count(service, clock)
            except Unavailable as error:
                log.debug("dead_letters.not_observed", reason=str(error))
            await asyncio.sleep(OBSERVE_S)

    async def count(self, service: str, clock: Clock) -> None:
        """Tell the metrics how many dead letters a service has now. Raises Unavailable."""
        origins: tuple[Origin, ...] = ("inbox", "broker", "outbox")
        async with self._database.read() as connection:
            for origin in origins:
                wanted = LetterFilter(service=service, origin=origin)
                if origin == "outbox":
                    number, oldest_ms = await tally_refused(self._database, connection, wanted.of_outbox())
                else:
                    number, oldest_ms = await tally(self._database, connection, wanted.of_inbox())
                age_s = max(0.0, (clock.now_ms() - oldest_ms) / 1000) if oldest_ms is not None else 0.0
                DEAD_LETTERS.labels(service, origin).set(number)
                DEAD_LETTERS_AGE.labels(service, origin).set(age_s)

    async def _of_inbox(
        self, connection: Connection, wanted: LetterFilter, before_id: int | None, at_most: int
    ) -> list[DeadLetter]:
        if wanted.origin == "outbox":
            return []
        rows = await list_dead(
            self._database, connection, wanted.of_inbox(), before_id=before_id, at_most=at_most
        )
        return [_worked_letter(row) for row in rows]

    async def _of_outbox(
        self, connection: Connection, wanted: LetterFilter, before_id: int | None, at_most: int
    ) -> list[DeadLetter]:
        if wanted.origin not in (None, "outbox") or wanted.consumer is not None:
            return []
        rows = await list_refused(
            self._database, connection, wanted.of_outbox(), before_id=before_id, at_most=at_most
        )
        return [_told_letter(row) for row in rows]

    async def _each(self, letter_ids: Sequence[str], of_inbox: Act, of_outbox: Act) -> Handled:
        if len(letter_ids) > MAX_AT_ONCE:
            raise Refused(f"at most {MAX_AT_ONCE} at a time", field="ids")
        numbers: dict[str, dict[int, str]] = {"inbox": {}, "outbox": {}}
        problems: dict[str, SpoolError] = {}
        for letter_id in letter_ids:
            try:
                box, number = _parsed(letter_id)
            except NotFound as error:
                problems[letter_id] = error
                continue
            numbers[box][number] = letter_id
        for box, act in (("inbox", of_inbox), ("outbox", of_outbox)):
            if named := numbers[box]:
                why_not = await act(self._database, list(named))
                problems |= {named[number]: error for number, error in why_not.items()}
        done = tuple(letter_id for letter_id in dict.fromkeys(letter_ids) if letter_id not in problems)
        return Handled(done, problems)


def _parsed(letter_id: str) -> tuple[Literal["inbox", "outbox"], int]:
    """Return the table and the row of a letter. Raises NotFound for what is no id."""
    number = letter_id.removeprefix(OUTBOX_PREFIX)
    if not (number.isascii() and number.isdigit()) or len(number) > MAX_DIGITS:
        raise NotFound(f"there is no dead letter {letter_id}")
    return "outbox" if letter_id.startswith(OUTBOX_PREFIX) else "inbox", int(number)


def _last(letters: Sequence[DeadLetter], before: int | None) -> int | None:
    return _parsed(letters[-1].id)[1] if letters else before


def _source_of(service: str) -> str:
    return f"/spool/{service}"


def _worked_letter(work: DeadWork) -> DeadLetter:
    return DeadLetter(
        id=str(work.id),
        origin="broker" if work.given_up_by_broker else "inbox",
        service=work.consumer.partition(".")[0],
        consumer=work.consumer,
        type=work.type,
        subject=work.subject,
        event_id=work.event_id,
        source=work.source,
        handler=work.handler,
        attempt=work.attempt,
        worker=work.worker,
        outcome=work.outcome or "dead",
        reason=work.reason or "",
        traceback_digest=work.traceback_digest,
        first_seen_ms=work.received_ms,
        failing_since_ms=work.failing_since_ms,
        replayed_ms=work.replayed_ms,
        dead_since_ms=work.done_ms,
        size_bytes=work.size_bytes,
    )


def _told_letter(event: RefusedEvent) -> DeadLetter:
    return DeadLetter(
        id=f"{OUTBOX_PREFIX}{event.id}",
        origin="outbox",
        service=event.source.removeprefix(_source_of("")),
        consumer=None,
        type=event.type,
        subject=event.subject,
        event_id=event.event_id,
        source=event.source,
        handler=None,
        attempt=1,
        worker=None,
        outcome="refused",
        reason=event.refused,
        traceback_digest=None,
        first_seen_ms=event.created_ms,
        failing_since_ms=None,
        replayed_ms=None,
        dead_since_ms=event.created_ms,
        size_bytes=event.size_bytes,
    )
