"""Work over HTTP: what is done, since when, how often, what went wrong, when next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from shared.database.engine import Database
from shared.database.tables import State
from shared.events.fields import Wire
from shared.inbox.listing import WorkFilter, WorkRow, cancel_work, list_work, show_work, wake_keys_of
from shared.kernel.timeline import iso_utc
from shared.runtime.errors import ERROR_ANSWERS
from shared.runtime.paging import page_position, page_token

Id = Annotated[int, Path(ge=1, le=(1 << 63) - 1)]
Text = Annotated[str | None, Query(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]
MaxItems = Annotated[int, Query(alias="maxItems", ge=1, le=500)]
PageToken = Annotated[str | None, Query(alias="nextPageToken")]


# Says how far pieces of work about some subjects are, in words for a person; of those it knows.
Progress = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]


class Work(Wire):
    """A piece of work: an event that a subscription received, and where it is.

    `nextAt` is when it is tried again or wakes by itself, `wakeKeys` what wakes it before; `handler` could
    not do it, when it is dead; `progress` is told by the service, while it works.
    """

    id: int
    consumer: str
    type: str
    subject: str
    event_id: str
    source: str
    state: Literal["ready", "working", "done", "dead"]
    attempt: int
    waiting: bool
    wake_keys: tuple[str, ...]
    ordered: bool
    cancel_requested: bool
    worker: str | None
    progress: str | None
    received_at: str
    replayed_at: str | None
    failing_since: str | None
    claimed_at: str | None
    next_at: str | None
    lease_until: str | None
    done_at: str | None
    outcome: str | None
    reason: str | None
    traceback_digest: str | None
    handler: str | None


class WorkPage(Wire):
    """Some pieces of work, the newest first."""

    work: tuple[Work, ...]
    next_page_token: str | None


class Cancelled(Wire):
    """Whoever does the work stops within seconds; it ends as a dead letter."""

    id: int
    cancel_requested: Literal[True] = True


def work_router(
    database: Database, *, changed: Callable[[], None], progress: Mapping[str, Progress] | None = None
) -> APIRouter:
    """Build the routes below `/api/v1/work`. `changed` wakes the workers; `progress` is by type of event."""
    router = APIRouter(prefix="/api/v1/work", tags=["work"], responses=ERROR_ANSWERS)

    async def told(rows: Sequence[WorkRow]) -> list[Work]:
        async with database.read() as connection:
            keys = await wake_keys_of(connection, [row.id for row in rows])
        reached = await _reached(rows, progress or {})
        return [_work(row, keys.get(row.id, ()), reached.get(row.id)) for row in rows]

    @router.get("")
    async def list_all_work(
        *,
        service: Text = None,
        consumer: Text = None,
        event_type: Annotated[Text, Query(alias="type")] = None,
        state: Literal["ready", "working", "done", "dead"] | None = None,
        subject: Text = None,
        failing: bool | None = None,
        waiting: bool | None = None,
        max_items: MaxItems = 50,
        next_page_token: PageToken = None,
    ) -> WorkPage:
        """List work, the newest first."""
        wanted = WorkFilter(
            service=service,
            consumer=consumer,
            type=event_type,
            state=State[state.upper()] if state else None,
            subject=subject,
            failing=failing,
            waiting=waiting,
            before_id=_before(next_page_token),
        )
        async with database.read() as connection:
            rows = await list_work(connection, wanted, at_most=max_items)
        return WorkPage(work=tuple(await told(rows)), next_page_token=_token(rows, max_items))

    @router.get("/{work_id}")
    async def show_one_work(work_id: Id) -> Work:
        """Tell everything about one piece of work."""
        async with database.read() as connection:
            row = await show_work(connection, work_id)
        return (await told([row]))[0]

    @router.post("/{work_id}/cancel", status_code=202)
    async def cancel_one_work(work_id: Id) -> Cancelled:
        """Stop a piece of work for good; it leaves nothing behind, and can be replayed."""
        await cancel_work(database, work_id)
        changed()
        return Cancelled(id=work_id)

    return router


async def _reached(rows: Sequence[WorkRow], progress: Mapping[str, Progress]) -> dict[int, str]:
    """Ask the services how far what is being done is."""
    reached: dict[int, str] = {}
    for event_type, tell in progress.items():
        ours = [row for row in rows if row.state is State.WORKING and row.type == event_type]
        words = await tell([row.subject for row in ours]) if ours else {}
        reached |= {row.id: words[row.subject] for row in ours if row.subject in words}
    return reached


def _work(row: WorkRow, wake_keys: tuple[str, ...], progress: str | None) -> Work:
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
        wake_keys=wake_keys,
        ordered=row.ordered,
        cancel_requested=row.cancel_requested,
        worker=row.worker,
        progress=progress,
        received_at=iso_utc(row.received_ms),
        replayed_at=moment_or_none(row.replayed_ms),
        failing_since=moment_or_none(row.failing_since_ms),
        claimed_at=moment_or_none(row.claimed_ms),
        next_at=moment_or_none(row.not_before_ms),
        lease_until=moment_or_none(row.lease_until_ms),
        done_at=moment_or_none(row.done_ms),
        outcome=row.outcome,
        reason=row.reason,
        traceback_digest=row.traceback_digest,
        handler=row.handler,
    )


def moment_or_none(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else iso_utc(moment_ms)


def _before(token: str | None) -> int | None:
    position = page_position(token, of=(int,))
    return None if position is None else int(position[0])


def _token(rows: list[WorkRow], max_items: int) -> str | None:
    """Return where the next page starts; a full page may be the last one."""
    return page_token([rows[-1].id]) if len(rows) == max_items else None
