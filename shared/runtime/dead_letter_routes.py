"""Dead letters over HTTP: why something could not be done or told, what it said, and one more try."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ConfigDict, Field, model_validator

from shared.events.fields import Wire
from shared.inbox.dead_letters import MAX_AT_ONCE, MAX_ROWS
from shared.kernel.timeline import iso_utc
from shared.runtime.api_key import shown_key
from shared.runtime.dead_letters import DeadLetter, DeadLetters, Handled, LetterFilter, Origin, Place
from shared.runtime.errors import ERROR_ANSWERS
from shared.runtime.paging import page_position, page_token
from shared.runtime.work_routes import moment_or_none

log = structlog.get_logger()

MAX_AGE_S = 10 * 366 * 86_400

LetterId = Annotated[str, Path(pattern=r"^(outbox-)?[0-9]{1,18}$", description="The id in the list.")]
Word = Annotated[str | None, Field(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]


class DeadLetterItem(Wire):
    """Something that could not be done or told. `origin` says who gave up: inbox, broker or outbox.

    In the inbox and from the broker its id is that of the work. `consumer` is the queue it came to,
    `deadSince` when it was given up; `sizeBytes` of its body.
    """

    id: str
    origin: Origin
    service: str
    consumer: str | None
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
    first_seen_at: str
    failing_since: str | None
    replayed_at: str | None
    dead_since: str
    size_bytes: int


class DeadLetterPage(Wire):
    """Some dead letters, the newest first."""

    dead_letters: tuple[DeadLetterItem, ...]
    next_page_token: str | None


class DeadLetterAnswer(DeadLetterItem):
    """A dead letter with its body as it came: as text where it is text, in Base64 always."""

    content_type: str | None
    body: str | None
    body_base64: str


class Common(Wire):
    """What dead letters have in common; what is not given lets everything through.

    Ages are counted in seconds from when it was given up; `reason` is a part of the reason, in any case.
    """

    # A word that is misspelt must not widen what is dropped.
    model_config = ConfigDict(extra="forbid")

    service: Word = None
    origin: Origin | None = None
    consumer: Word = None
    type: Word = None
    subject: Word = None
    reason: Word = None
    older_than_s: Annotated[int | None, Field(ge=0, le=MAX_AGE_S)] = None
    newer_than_s: Annotated[int | None, Field(ge=0, le=MAX_AGE_S)] = None

    def filter(self) -> LetterFilter:
        return LetterFilter(
            service=self.service,
            origin=self.origin,
            consumer=self.consumer,
            type=self.type,
            subject=self.subject,
            reason=self.reason,
            older_than_ms=None if self.older_than_s is None else self.older_than_s * 1000,
            newer_than_ms=None if self.newer_than_s is None else self.newer_than_s * 1000,
        )


class Wanted(Common):
    """Which dead letters to list, and how many."""

    max_items: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 50
    next_page_token: str | None = None


class Chosen(Common):
    """Which dead letters: by `ids`, or the newest that have something in common, or `all`."""

    ids: Annotated[tuple[str, ...], Field(max_length=MAX_AT_ONCE)] = ()
    all: bool = False
    at_most: Annotated[int, Field(ge=1, le=MAX_AT_ONCE)] = MAX_AT_ONCE

    @model_validator(mode="after")
    def _is_one_way(self) -> Chosen:
        in_common = self.all or self.filter() != LetterFilter()
        if bool(self.ids) == in_common:
            raise ValueError("give either ids, or what they have in common, or all: true")
        return self


class NotHandled(Wire):
    """A dead letter that was left as it is, and why."""

    id: str
    message: str


class HandledLetters(Wire):
    """The ids of those that were, and of each other one why not."""

    done: tuple[str, ...]
    problems: tuple[NotHandled, ...]


class Replayed(Wire):
    """The dead letter is ready again, under the same id."""

    id: str
    state: Literal["ready"] = "ready"


class Dropped(Wire):
    """The dead letter is gone, with its body. While its row is kept a redelivery is recognised."""

    id: str
    state: Literal["dropped"] = "dropped"


def dead_letter_router(letters: DeadLetters) -> APIRouter:
    """Build the routes below `/api/v1/dead-letters`."""
    router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"], responses=ERROR_ANSWERS)

    @router.get("")
    async def list_letters(wanted: Annotated[Wanted, Query()]) -> DeadLetterPage:
        """List what could not be done or told, the newest first."""
        after = _place(wanted.next_page_token)
        found, place = await letters.page(wanted.filter(), after=after, at_most=wanted.max_items)
        token = _token(place) if len(found) == wanted.max_items else None
        return DeadLetterPage(dead_letters=tuple(map(_item, found)), next_page_token=token)

    @router.get("/{letter_id}")
    async def show_letter(letter_id: LetterId) -> DeadLetterAnswer:
        """Show a dead letter with its body, byte for byte."""
        letter, body, content_type = await letters.show(letter_id)
        return DeadLetterAnswer(
            **_item(letter).model_dump(),
            content_type=content_type,
            body=_text_or_none(body),
            body_base64=base64.b64encode(body).decode(),
        )

    @router.get("/{letter_id}/body", response_class=Response)
    async def show_body(letter_id: LetterId) -> Response:
        """Answer the body alone, as bytes that no browser opens."""
        _, body, _ = await letters.show(letter_id)
        headers = {"content-disposition": f'attachment; filename="dead-letter-{letter_id}"'}
        return Response(body, media_type="application/octet-stream", headers=headers)

    @router.post("/replay")
    async def replay_letters(chosen: Chosen) -> HandledLetters:
        """Let dead letters be tried again, with all their attempts before them. They keep their ids."""
        return _handled(await letters.replay(await _ids(letters, chosen)))

    @router.post("/drop")
    async def drop_letters(chosen: Chosen, request: Request) -> HandledLetters:
        """Let dead letters go, with their bodies. The log keeps who dropped which."""
        return _handled(await _drop(letters, await _ids(letters, chosen), request))

    @router.post("/{letter_id}/replay", status_code=202)
    async def replay_letter(letter_id: LetterId) -> Replayed:
        """Let it be tried again, with all its attempts before it. It keeps its id."""
        _raise_problem(await letters.replay([letter_id]))
        return Replayed(id=letter_id)

    @router.post("/{letter_id}/drop")
    async def drop_letter(letter_id: LetterId, request: Request) -> Dropped:
        """Let it go, with its body. The log keeps who dropped it."""
        _raise_problem(await _drop(letters, [letter_id], request))
        return Dropped(id=letter_id)

    return router


async def _ids(letters: DeadLetters, chosen: Chosen) -> Sequence[str]:
    if chosen.ids:
        return chosen.ids
    found, _ = await letters.page(chosen.filter(), at_most=chosen.at_most)
    return [letter.id for letter in found]


async def _drop(letters: DeadLetters, ids: Sequence[str], request: Request) -> Handled:
    handled = await letters.drop(ids)
    key = shown_key(dict(request.scope["headers"])) or ""
    log.warning(
        "dead_letters.dropped",
        ids=handled.done,
        by=request.client.host if request.client else None,
        key_sha256=hashlib.sha256(key.encode()).hexdigest()[:12],  # which of the keys, and not the key
    )
    return handled


def _raise_problem(handled: Handled) -> None:
    for problem in handled.problems.values():
        raise problem


def _handled(handled: Handled) -> HandledLetters:
    problems = tuple(
        NotHandled(id=letter_id, message=str(problem)) for letter_id, problem in handled.problems.items()
    )
    return HandledLetters(done=handled.done, problems=problems)


def _item(letter: DeadLetter) -> DeadLetterItem:
    return DeadLetterItem(
        id=letter.id,
        origin=letter.origin,
        service=letter.service,
        consumer=letter.consumer,
        type=letter.type,
        subject=letter.subject,
        event_id=letter.event_id,
        source=letter.source,
        handler=letter.handler,
        attempt=letter.attempt,
        worker=letter.worker,
        outcome=letter.outcome,
        reason=letter.reason,
        traceback_digest=letter.traceback_digest,
        first_seen_at=iso_utc(letter.first_seen_ms),
        failing_since=moment_or_none(letter.failing_since_ms),
        replayed_at=moment_or_none(letter.replayed_ms),
        dead_since=iso_utc(letter.dead_since_ms),
        size_bytes=letter.size_bytes,
    )


def _place(token: str | None) -> Place:
    position = page_position(token, of=(int, int))
    return Place() if position is None else Place(*(int(part) or None for part in position))


def _token(place: Place) -> str:
    """Return where the next page starts; 0 is the beginning."""
    return page_token([place.inbox_id or 0, place.outbox_id or 0])


def _text_or_none(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
