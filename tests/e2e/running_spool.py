"""A Spool that runs inside of a test: the real one, its HTTP client, and ears on its bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import httpx

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus
from shared.events.clip import ClipAvailable, ClipFailed, ClipNotAvailable, ClipRefused, ClipRequested
from shared.events.envelope import CONTENT_TYPE, Event, EventData, Kind, wrap
from shared.events.registry import read_posted
from shared.events.source import SourceAvailable
from shared.kernel.errors import Unavailable
from shared.media.port import Media
from shared.runtime.wiring import Seams
from shared.settings.settings import Settings, load_settings
from shared.storage.port import Storage, WriteOptions
from spool.camera import Recording
from spool.serving import SERVICES, Running, serve

START_MS = 1_763_800_000_000  # when the recordings of these tests begin, in UTC
PATIENCE_S = 45  # for one answer; a clip takes a second, on a busy machine ten
LOOK_EVERY_S = 0.05  # where there is nothing to wait for but the answer to a question
LISTENER = "e2e"  # the service whose queue hears what Spool tells

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Addresses:
    """What configures a Spool, beside its directory."""

    bus: str = "local:"
    storage: str | None = None
    database: str | None = None


@dataclass(slots=True)
class Ears:
    """A subscription of our own to every result, on the real bus."""

    bus: Bus
    heard: list[Event] = field(default_factory=list)
    plain: list[Delivery] = field(default_factory=list)  # what came without an envelope
    headers: dict[str, Mapping[str, str]] = field(default_factory=dict)  # of the last message, by event id
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def subscription(self) -> Subscription:
        types = tuple(
            sorted(kind.type for kind in (ClipAvailable, ClipNotAvailable, ClipRefused, ClipFailed))
        )
        return Subscription(service=LISTENER, name="told", types=types)

    async def listen(self) -> None:
        """Hear until cancelled, also over a broker that goes away and comes back."""
        while True:
            try:
                deliveries = await self.bus.receive(self.subscription, at_most=32, wait_s=5)
                await self.bus.acknowledge(deliveries)
            except Unavailable:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            async with self._news:
                for delivery in deliveries:
                    if delivery.content_type == CONTENT_TYPE:
                        event = read_posted(delivery.body).event
                        self.heard.append(event)
                        self.headers[event.id] = delivery.headers
                    else:
                        self.plain.append(delivery)
                self._news.notify_all()

    async def answers(self, subject: str, count: int = 1) -> list[Event]:
        """Return what was told about a clip, once that is `count` times."""

        def about() -> list[Event]:
            return [event for event in self.heard if event.subject == subject]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(about()) >= count)
        return about()

    async def plain_answers(self, count: int) -> list[Delivery]:
        """Return what came without an envelope, once that is `count` results."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.plain) >= count)
        return self.plain


@dataclass(frozen=True, slots=True)
class RunningSpool:
    """What a test holds of a Spool: its directory, HTTP client, bus and store."""

    running: Running
    http: httpx.AsyncClient
    bus: Bus
    storage: Storage
    ears: Ears

    async def store(self, key: str, content: bytes) -> None:
        """Put a recording where Spool reads it."""
        async with self.storage.writer(key, WriteOptions()) as writer:
            await writer.write(content)

    async def publish(self, data: EventData, *, event_id: str | None = None) -> str:
        """Publish an event on the bus, as another system does. Returns its id."""
        event = wrap(data, id=event_id or uuid4().hex, source="e2e", time_ms=START_MS)
        await self.publish_bytes(data.type, event.to_bytes(), event.id, mandatory=data.kind is Kind.COMMAND)
        return event.id

    async def publish_bytes(
        self,
        event_type: str,
        body: bytes,
        message_id: str,
        *,
        mandatory: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = Message(
            message_id, event_type, body, CONTENT_TYPE, mandatory=mandatory, headers=headers or {}
        )
        await self.bus.publish([message])

    async def announce(
        self, camera_id: str, key: str, *, start_ms: int = START_MS, duration_ms: int, size_bytes: int | None
    ) -> None:
        """Announce a source on the bus."""
        source = SourceAvailable(
            camera_id=camera_id,
            key=key,
            start_timestamp_in_ms=start_ms,
            end_timestamp_in_ms=start_ms + duration_ms,
            size_bytes=size_bytes,
        )
        await self.publish(source)

    async def add(self, camera_id: str, *recordings: Recording) -> None:
        """Store recordings as `<camera>/<file name>`, announce them, and wait until they are indexed."""
        for recording in recordings:
            content = recording.path.read_bytes()
            key = f"{camera_id}/{recording.path.name}"
            await self.store(key, content)
            await self.announce(
                camera_id,
                key,
                start_ms=recording.start_ms,
                duration_ms=recording.end_ms - recording.start_ms,
                size_bytes=len(content),
            )
        await self.indexed(camera_id, len(recordings))

    async def indexed(self, camera_id: str, count: int) -> None:
        """Wait until `count` announcements of a camera are worked."""
        of_camera = {"type": SourceAvailable.type, "subject": camera_id, "state": "done"}
        await self.until("/api/v1/work", lambda page: len(page["work"]) >= count, **of_camera)

    async def answer(self, request: ClipRequested, count: int = 1) -> Event:
        """Publish a request on the bus and return what is told about its clip, the last of `count` times."""
        await self.publish(request)
        return (await self.ears.answers(request.clip_id, count))[-1]

    async def post_clip(
        self, clip_id: str, camera_id: str, start_ms: int, end_ms: int, **request: Any
    ) -> httpx.Response:
        body = {
            "clipId": clip_id,
            "cameraId": camera_id,
            "startTimestampInMs": start_ms,
            "endTimestampInMs": end_ms,
        }
        return await self.http.post("/api/v1/clips", json=body, **request)

    async def get(self, path: str, **parameters: str | int) -> Json:
        answer = await self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def fetch(self, clip_id: str, to: Path) -> Path:
        """Download a clip."""
        answer = await self.http.get(f"/api/v1/clips/{clip_id}/media")
        assert answer.status_code == 200, answer.text
        to.write_bytes(answer.content)
        return to

    async def until(self, path: str, holds: Callable[[Json], bool], **parameters: str | int) -> Json:
        """Ask until the answer is as wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if holds(found := await self.get(path, **parameters)):
                    return found
                await asyncio.sleep(LOOK_EVERY_S)

    async def dead_letters(self, count: int) -> list[Json]:
        """Return the dead letters, newest first, once there are `count` of them."""
        page = await self.until("/api/v1/dead-letters", lambda page: len(page["deadLetters"]) >= count)
        letters: list[Json] = page["deadLetters"]
        return letters

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all its series that have the labels."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and all(label in line for label in wanted)
        )


def clip_of(clip_id: str, camera_id: str, start_ms: int, end_ms: int) -> ClipRequested:
    """Ask for [start_ms, end_ms), counted from START_MS."""
    return ClipRequested(
        clip_id=clip_id,
        camera_id=camera_id,
        start_timestamp_in_ms=START_MS + start_ms,
        end_timestamp_in_ms=START_MS + end_ms,
    )


def spool_settings(directory: Path, addresses: Addresses = Addresses()) -> Settings:
    return load_settings(
        bus=addresses.bus,
        storage=addresses.storage,
        database=addresses.database,
        data_directory=directory,
        http_host="127.0.0.1",
        http_port=0,
        public_url=None,
        api_keys=(),
        log_level="error",
        log_format="text",
        _env_file=os.devnull,
    )


@asynccontextmanager
async def running_spool(
    settings: Settings, *, media: Callable[[Media], Media] = lambda media: media
) -> AsyncIterator[RunningSpool]:
    """Run all services, and drain them at the end. `media` puts something before the engine."""
    ports: dict[str, Any] = {}

    def keep_bus(bus: Bus) -> Bus:
        ports["bus"] = bus
        return bus

    def keep_storage(storage: Storage) -> Storage:
        ports["storage"] = storage
        return storage

    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    seams = Seams(bus=keep_bus, storage=keep_storage, media=media)
    serving = asyncio.create_task(
        serve(settings, services=SERVICES, on_ready=ready.set_result, seams=seams), name="spool"
    )
    await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    running = ready.result()
    ears = Ears(ports["bus"])
    await ears.bus.declare([ears.subscription])
    listening = asyncio.create_task(ears.listen(), name="ears")
    client = httpx.AsyncClient(
        base_url=running.url, headers={"x-api-key": running.api_key}, timeout=PATIENCE_S, trust_env=False
    )
    try:
        async with client:
            yield RunningSpool(running, client, ears.bus, ports["storage"], ears)
    finally:
        for task in (listening, serving):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
