"""The clipper's HTTP routes: ask for a clip, list, look, watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from services.clipper.domain.clip_keys import clip_key, thumbnail_key
from services.clipper.domain.clip_outcome import Status, said_before
from services.clipper.domain.clip_request import refusal_of
from services.clipper.settings import ClipperSettings
from services.clipper.store import ClipFilter, ClipRow, Clips
from shared.events.clip import AskedPrecision, ClipAvailable, ClipRequested
from shared.events.fields import MomentMs, Name, Wire
from shared.kernel.clock import Clock
from shared.kernel.errors import NotFound, Refused
from shared.kernel.ids import new_id
from shared.kernel.timeline import iso_utc
from shared.outbox.writing import Outbox
from shared.runtime.errors import ERROR_ANSWERS
from shared.runtime.object_response import object_response
from shared.runtime.paging import page_position, page_token
from shared.storage.port import Storage


class ClipRequest(Wire):
    """What to cut. Without a `clipId` the clip gets a fresh one."""

    clip_id: Name | None = None
    camera_id: Name
    start_timestamp_in_ms: MomentMs
    end_timestamp_in_ms: MomentMs
    precision: AskedPrecision = None


class Clip(Wire):
    """A clip that was asked for. `result` is the data of the event that told how it ended."""

    clip_id: str
    camera_id: str
    start_timestamp_in_ms: int
    end_timestamp_in_ms: int
    precision: str | None
    status: Status
    requested_at: str
    updated_at: str
    progress_ms: Annotated[int, Field(description="How much of the clip is written, in milliseconds of it.")]
    result_type: str | None
    result: dict[str, Any] | None


class ClipPage(Wire):
    """Some clips, and how to get the next ones."""

    clips: tuple[Clip, ...]
    next_page_token: str | None


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes of the clipper work with."""

    clips: Clips
    storage: Storage
    outbox: Outbox
    clock: Clock
    settings: ClipperSettings


def clip_router(desk: Desk) -> APIRouter:
    """Build the routes below `/api/v1/clips`."""
    router = APIRouter(prefix="/api/v1/clips", tags=["clips"], responses=ERROR_ANSWERS)

    @router.post("", status_code=202)
    async def request_clip(body: ClipRequest, response: Response) -> Clip:
        """Ask for a clip. The answer comes as an event, and under the `Location` of this one."""
        request = _request(body, desk)
        row = await desk.clips.request(request, tell=desk.outbox.command(request))
        response.headers["location"] = f"/api/v1/clips/{row.clip_id}"
        return _clip(row)

    @router.get("")
    async def list_clips(
        *,
        camera_id: Annotated[Name | None, Query(alias="cameraId")] = None,
        status: Status | None = None,
        from_ms: Annotated[MomentMs | None, Query(alias="from")] = None,
        to_ms: Annotated[MomentMs | None, Query(alias="to")] = None,
        max_items: Annotated[int, Query(alias="maxItems", ge=1, le=500)] = 50,
        next_page_token: Annotated[str | None, Query(alias="nextPageToken")] = None,
    ) -> ClipPage:
        """List clips, the newest request first. `from` and `to`: UTC milliseconds that a clip touches."""
        position = page_position(next_page_token, of=(int, str))
        after = (int(position[0]), str(position[1])) if position else None
        wanted = ClipFilter(camera_id=camera_id, status=status, from_ms=from_ms, to_ms=to_ms, after=after)
        rows = await desk.clips.page(wanted, at_most=max_items + 1)
        return _page(rows, max_items)

    @router.get("/{clip_id}")
    async def show_clip(clip_id: Name) -> Clip:
        """Tell what became of a clip."""
        return _clip(await _row(desk, clip_id))

    @router.head("/{clip_id}/media", include_in_schema=False)
    @router.get("/{clip_id}/media")
    async def watch_clip(clip_id: Name, request: Request) -> Response:
        """Stream the clip, with one Range (`a-b`, `a-`, `-n`)."""
        row = await _available_row(desk, clip_id)
        key = clip_key(desk.settings.key_prefix, row.camera_id, clip_id)
        return await object_response(request, desk.storage, key, content_type="video/mp4")

    @router.head("/{clip_id}/thumbnails/{width}", include_in_schema=False)
    @router.get("/{clip_id}/thumbnails/{width}")
    async def show_thumbnail(clip_id: Name, width: str, request: Request) -> Response:
        """Send a thumbnail: one of the configured widths, or `original`."""
        row = await _available_row(desk, clip_id)
        if width not in _thumbnail_sizes(row):
            sizes = ", ".join(_thumbnail_sizes(row)) or "none"
            raise NotFound(f"the clip {clip_id} has no thumbnail {width}; it has {sizes}")
        key = thumbnail_key(desk.settings.key_prefix, row.camera_id, clip_id, width)
        return await object_response(request, desk.storage, key, content_type="image/jpeg")

    return router


def _request(body: ClipRequest, desk: Desk) -> ClipRequested:
    """Return the event that a body asks for. Raises Refused as `clip_refused` would say it."""
    clip_id = body.clip_id or new_id(desk.clock)
    request = ClipRequested(**body.model_dump() | {"clip_id": clip_id})
    now_ms = desk.clock.now_ms()
    refusal = refusal_of(request, now_ms=now_ms, max_clip_ms=desk.settings.max_clip_ms)
    if refusal:
        raise Refused(refusal.message, field=refusal.field)
    return request


async def _row(desk: Desk, clip_id: str) -> ClipRow:
    row = await desk.clips.find(clip_id)
    if row is None:
        raise NotFound(f"no request for the clip {clip_id} has been taken up")
    return row


async def _available_row(desk: Desk, clip_id: str) -> ClipRow:
    row = await _row(desk, clip_id)
    if row.status != "available":
        raise NotFound(f"the clip {clip_id} is {row.status.replace('_', ' ')}: there is nothing to fetch")
    return row


def _thumbnail_sizes(row: ClipRow) -> tuple[str, ...]:
    outcome = said_before(row.result_type, row.result)
    return tuple(t.size for t in outcome.thumbnails) if isinstance(outcome, ClipAvailable) else ()


def _page(rows: list[ClipRow], max_items: int) -> ClipPage:
    shown, more = rows[:max_items], len(rows) > max_items
    token = page_token([shown[-1].requested_ms, shown[-1].clip_id]) if more else None
    return ClipPage(clips=tuple(_clip(row) for row in shown), next_page_token=token)


def _clip(row: ClipRow) -> Clip:
    outcome = said_before(row.result_type, row.result)
    return Clip(
        clip_id=row.clip_id,
        camera_id=row.camera_id,
        start_timestamp_in_ms=row.start_ms,
        end_timestamp_in_ms=row.end_ms,
        precision=row.precision,
        status=row.status,
        requested_at=iso_utc(row.requested_ms),
        updated_at=iso_utc(row.updated_ms),
        progress_ms=row.end_ms - row.start_ms if row.status == "available" else row.progress_ms,
        result_type=row.result_type,
        result=outcome.model_dump(mode="json", by_alias=True, exclude_none=True) if outcome else None,
    )
