"""Events over HTTP: an entrance like a queue, and a window on what was told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from shared.database.engine import Connection, Database
from shared.events.envelope import Event, Kind
from shared.events.fields import Wire
from shared.events.registry import read_posted
from shared.kernel.clock import Clock
from shared.kernel.timeline import iso_utc
from shared.observability.tracing import here, next_hop
from shared.outbox.reading import Told, last_id, read_after
from shared.outbox.writing import append
from shared.runtime.errors import ERROR_ANSWERS

FOLLOW_EVERY_S = 0.25  # a person watches
KEEP_ALIVE_S = 15.0  # proxies close a stream that says nothing for longer
MAX_CURSOR = (1 << 63) - 1

Cursor = Annotated[int, Query(ge=0, le=MAX_CURSOR)]


class Published(Wire):
    """The event is durable, and will be published under its own id."""

    id: str


class ToldEvent(Wire):
    """An event that Spool told or passed on. `sentAt` is when the bus confirmed it."""

    cursor: int
    sent_at: str | None
    event: dict[str, Any]


class EventPage(Wire):
    """Some events, oldest first; `nextPageToken` is the cursor to read on after."""

    events: tuple[ToldEvent, ...]
    next_page_token: str | None


def event_router(
    database: Database, clock: Clock, *, told: Callable[[], None], ended: asyncio.Event
) -> APIRouter:
    """Build the routes below `/api/v1/events`. `told` wakes the relay; `ended` ends the streams."""
    router = APIRouter(prefix="/api/v1/events", tags=["events"], responses=ERROR_ANSWERS)

    @router.post("", status_code=202, openapi_extra=_event_body())
    async def publish_event(request: Request) -> Published:
        """Take a CloudEvent (JSON, structured). It is durable when this answers, even if the bus is away."""
        received = read_posted(await request.body())
        event = received.event
        if event.traceparent is None:
            trace = here() or next_hop(None)
            event = event.model_copy(update=trace._asdict())
        if event.subject is None:
            event = event.model_copy(update={"subject": received.data.subject})

        async def unit(connection: Connection) -> None:
            await append(connection, [(event, received.data.kind is Kind.COMMAND)], clock.now_ms())

        await database.write(unit)
        told()
        return Published(id=event.id)

    @router.get("")
    async def list_events(
        after: Cursor = 0, max_items: Annotated[int, Query(alias="maxItems", ge=1, le=500)] = 50
    ) -> EventPage:
        """List events that were told, oldest first, after a cursor."""
        async with database.read() as connection:
            rows = await read_after(connection, after, limit=max_items)
        token = str(rows[-1].id) if len(rows) == max_items else None
        return EventPage(events=tuple(_told(row) for row in rows), next_page_token=token)

    @router.get("/stream", response_class=StreamingResponse)
    async def follow_events(
        after: Annotated[int | None, Query(ge=0, le=MAX_CURSOR)] = None,
        last_event_id: Annotated[int | None, Header(ge=0, le=MAX_CURSOR)] = None,
    ) -> StreamingResponse:
        """Follow events as server-sent events: `id` is a cursor, `data` the event. Without one, from now."""
        start = last_event_id if last_event_id is not None else after
        if start is None:
            async with database.read() as connection:
                start = await last_id(connection)
        stream = _follow(database, start, ended)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    return router


async def _follow(database: Database, cursor: int, ended: asyncio.Event) -> AsyncIterator[str]:
    """Yield what is told after the cursor, until the process drains or the caller goes."""
    yield ": following\n\n"
    quiet_s = 0.0
    while not ended.is_set():
        async with database.read() as connection:
            rows = await read_after(connection, cursor)
        for row in rows:
            cursor = row.id
            yield f"id: {row.id}\ndata: {row.body.decode()}\n\n"
        quiet_s = 0.0 if rows else quiet_s + FOLLOW_EVERY_S
        if quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield ": nothing new\n\n"
        try:
            async with asyncio.timeout(FOLLOW_EVERY_S):
                await ended.wait()
        except TimeoutError:
            pass


def _told(row: Told) -> ToldEvent:
    sent_at = iso_utc(row.sent_ms) if row.sent_ms is not None else None
    return ToldEvent(cursor=row.id, sent_at=sent_at, event=json.loads(row.body))


def _event_body() -> dict[str, Any]:
    """Describe the body by hand: it is read as bytes, so that every fault is named in Spool's words."""
    schema = Event.model_json_schema()
    content = {"application/cloudevents+json": {"schema": schema}, "application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
