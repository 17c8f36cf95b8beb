"""Work and dead letters over HTTP: what is done, since when, how often, what went wrong, when next."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from shared.database.engine import Database
from shared.database.tables import State
from shared.events.fields import Wire
from shared.inbox.dead_letters import list_dead_letters, replay, show_dead_letter
from shared.inbox.listing import WorkFilter, WorkRow, cancel_work, list_work, show_work
from shared.kernel.timeline import iso_utc
from shared.runtime.errors import ERROR_ANSWERS
from shared.runtime.paging import page_position, page_token

Id = Annotated[int, Path(ge=1, le=(1 << 63) - 1)]
Text = Annotated[str | None, Query(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]
MaxItems = Annotated[int, Query(alias="maxItems", ge=1, le=500)]
PageToken = Annotated[str | None, Query(alias="nextPageToken")]


class Work(Wire):
    """A piece of work: an event that a subscription received, and where it is."""

    id: int
    consumer: str
    type: str
    subject: str
    event_id: str
    source: str
    state: Literal["ready", "working", "done", "dead"]
    attempt: int
    waiting: bool
    worker: str | None
    received_at: str
    claimed_at: str | None
    next_at: str | None
    lease_until: str | None
    done_at: str | None
    outcome: str | None
    reason: str | None
    traceback_digest: str | None


class WorkPage(Wire):
    """Some pieces of work, the newest first."""

    work: tuple[Work, ...]
    next_page_token: str | None


class Cancelled(Wire):
    """Whoever does the work stops within seconds; it ends as a dead letter."""

    id: int
    cancel_requested: Literal[True] = True


class DeadLetterPage(Wire):
    """Some dead letters, the newest first."""

    dead_letters: tuple[Work, ...]
    next_page_token: str | None


class DeadLetterAnswer(Work):
    """A dead letter with its body as it came: as text where it is text, in Base64 always."""

    content_type: str | None
    body: str | None
    body_base64: str


class Replayed(Wire):
    """The dead letter is ready again, under the same id."""

    id: int
    state: Literal["ready"] = "ready"


def work_router(database: Database, *, changed: Callable[[], None]) -> APIRouter:
    """Build the routes below `/api/v1/work`. `changed` wakes the workers."""
    router = APIRouter(prefix="/api/v1/work", tags=["work"], responses=ERROR_ANSWERS)

    @router.get("")
    async def list_all_work(
        *,
        consumer: Text = None,
        event_type: Annotated[Text, Query(alias="type")] = None,
        state: Literal["ready", "working", "done", "dead"] | None = None,
        subject: Text = None,
        max_items: MaxItems = 50,
        next_page_token: PageToken = None,
    ) -> WorkPage:
        """List work, the newest first."""
        wanted = WorkFilter(
            consumer=consumer,
            type=event_type,
            state=State[state.upper()] if state else None,
            subject=subject,
            before_id=_before(next_page_token),
        )
        async with database.read() as connection:
            rows = await list_work(connection, wanted, at_most=max_items)
        return WorkPage(work=tuple(map(_work, rows)), next_page_token=_token(rows, max_items))

    @router.get("/{work_id}")
    async def show_one_work(work_id: Id) -> Work:
        """Tell everything about one piece of work."""
        async with database.read() as connection:
            return _work(await show_work(connection, work_id))

    @router.post("/{work_id}/cancel", status_code=202)
    async def cancel_one_work(work_id: Id) -> Cancelled:
        """Stop a piece of work for good; it leaves nothing behind, and can be replayed."""
        await cancel_work(database, work_id)
        changed()
        return Cancelled(id=work_id)

    return router


def dead_letter_router(database: Database, *, replayed: Callable[[], None]) -> APIRouter:
    """Build the routes below `/api/v1/dead-letters`. `replayed` wakes the workers."""
    router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"], responses=ERROR_ANSWERS)

    @router.get("")
    async def list_letters(
        consumer: Text = None,
        event_type: Annotated[Text, Query(alias="type")] = None,
        max_items: MaxItems = 50,
        next_page_token: PageToken = None,
    ) -> DeadLetterPage:
        """List what could not be done, with the reason."""
        async with database.read() as connection:
            rows = await list_dead_letters(
                connection,
                consumer=consumer,
                event_type=event_type,
                before_id=_before(next_page_token),
                at_most=max_items,
            )
        token = _token(rows, max_items)
        return DeadLetterPage(dead_letters=tuple(map(_work, rows)), next_page_token=token)

    @router.get("/{letter_id}")
    async def show_letter(letter_id: Id) -> DeadLetterAnswer:
        """Show a dead letter with its body, byte for byte."""
        async with database.read() as connection:
            letter = await show_dead_letter(connection, letter_id)
        return DeadLetterAnswer(
            **_work(letter.work).model_dump(),
            content_type=letter.content_type,
            body=_text_or_none(letter.body),
            body_base64=base64.b64encode(letter.body).decode(),
        )

    @router.post("/{letter_id}/replay", status_code=202)
    async def replay_letter(letter_id: Id) -> Replayed:
        """Let it be tried again, with all its attempts before it. It keeps its id."""
        await replay(database, letter_id)
        replayed()
        return Replayed(id=letter_id)

    return router


def _work(row: WorkRow) -> Work:
    return Work(
        id=row.id,
        consumer=row.consumer,
        type=row.type,
        subject=row.subject,
        event_id=row.event_id,
        source=row.source,
        state=row.state.name.lower(),
        attempt=row.attempt,
        waiting=row.waiting,
        worker=row.worker,
        received_at=iso_utc(row.received_ms),
        claimed_at=_moment(row.claimed_ms),
        next_at=_moment(row.not_before_ms),
        lease_until=_moment(row.lease_until_ms),
        done_at=_moment(row.done_ms),
        outcome=row.outcome,
        reason=row.reason,
        traceback_digest=row.traceback_digest,
    )


def _moment(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else iso_utc(moment_ms)


def _before(token: str | None) -> int | None:
    position = page_position(token, of=(int,))
    return None if position is None else int(position[0])


def _token(rows: list[WorkRow], max_items: int) -> str | None:
    """Return where the next page starts; a full page may be the last one."""
    return page_token([rows[-1].id]) if len(rows) == max_items else None


def _text_or_none(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
