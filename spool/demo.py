"""One clip travels the whole road, in one process and one directory, and is looked at frame by frame."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from shared.events.clip import ClipAvailable, ClipFailed, ClipNotAvailable, ClipRefused, ClipRequested
from shared.events.envelope import EventData, wrap
from shared.events.source import SourceAvailable
from shared.kernel.errors import NotFound, Unavailable
from shared.kernel.ids import new_id
from shared.media.port import MediaInfo, Progress
from shared.runtime.clock import SystemClock
from shared.settings.settings import Settings, load_settings
from shared.storage.port import Storage, WriteOptions
from spool.client import Address, JsonObject, SpoolClient
from spool.clip_file import describe_file, refuse_unreadable
from spool.demo_page import DemoPage
from spool.footage import Footage, Source, made_up, own_file
from spool.opening import MEDIA_DIRECTORY, open_media_directory
from spool.progress import shown_progress
from spool.proof import check_digest, check_thumbnails, stated_length_ms
from spool.serving import SERVICES, Running, serve

EVENT_SOURCE = "spool-demo"
PATIENCE_S = 300  # for one step of the road; a clip takes a second, a re-encoded one of a large film longer
LOOK_EVERY_S = 0.1
LISTED = 100  # the newest pieces of work: ours are among them
BEGINNING = "0"
CHUNK_BYTES = 1 << 20
OUTCOMES = frozenset({ClipAvailable.type, ClipNotAvailable.type, ClipRefused.type, ClipFailed.type})


@dataclass(frozen=True, slots=True)
class Journey:
    """What happened: every event of ours in order, and the last one, which answers the request."""

    events: tuple[JsonObject, ...]
    seconds: float

    @property
    def outcome(self) -> JsonObject:
        return self.events[-1]


async def run_demo(directory: Path, file: Path | None) -> bool:
    """Run the demo in `directory`, which is kept, and return whether every check passed.

    With `file` the user's own recording is used. Raises NotFound, Refused or Corrupt when it cannot be.
    """
    clock = SystemClock()
    info = await _describe(file) if file is not None else None
    page = DemoPage(Console(highlight=False, markup=False, soft_wrap=True))
    with tempfile.TemporaryDirectory(prefix="spool-demo-") if file is None else nullcontext("") as scratch:
        page.begin(directory, file)
        footage = await _take_footage(Path(scratch), file, info, now_ms=clock.now_ms())
        settings = demo_settings(directory)
        async with spool_running(settings) as running, SpoolClient(_address(running)) as client:
            await _store(settings, footage.sources)
            page.show_footage(footage)
            try:
                journey = await _travel(client, footage, clock)
            except TimeoutError as error:
                raise Unavailable(f"nothing came back within {PATIENCE_S} s", hint="try again") from error
        page.show_events(journey.events)
        return await _tell_end(page, directory, footage, journey)


def demo_settings(directory: Path) -> Settings:
    """Return the embedded default on a directory of the demo's own, whatever the environment says."""
    return load_settings(
        bus="local:",
        storage=None,
        database=None,
        data_directory=directory,
        http_host="127.0.0.1",
        http_port=0,
        public_url=None,
        api_keys=(),
        log_level="error",
        log_format="text",
    )


@asynccontextmanager
async def spool_running(settings: Settings) -> AsyncIterator[Running]:
    """Run all services while the context is open. Ends the context when they end by themselves (Ctrl-C)."""
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(settings, services=SERVICES, on_ready=ready.set_result))
    await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await serving
        raise Unavailable("Spool ended before it was ready")
    inside = asyncio.current_task()
    assert inside is not None  # a coroutine runs in a task

    def give_up(_ended: object) -> None:
        inside.cancel()

    serving.add_done_callback(give_up)
    try:
        yield ready.result()
    except asyncio.CancelledError:
        if serving.done():
            serving.result()  # its error is the reason
            raise KeyboardInterrupt from None  # it took the signal, drained, and ended well
        raise
    finally:
        serving.remove_done_callback(give_up)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def _describe(file: Path) -> MediaInfo:
    """Look at the user's recording before anything is started."""
    refuse_unreadable(file)
    info = await describe_file(file)
    if info.duration_ms == 0:  # only an MP4's index says how long it lasts
        info = replace(info, duration_ms=await stated_length_ms(file))
    return info


async def _take_footage(scratch: Path, file: Path | None, info: MediaInfo | None, *, now_ms: int) -> Footage:
    if file is not None and info is not None:
        return own_file(file, info, now_ms=now_ms)
    with shown_progress("recording") as progress:
        return await made_up(scratch, now_ms=now_ms, progress=progress)


async def _store(settings: Settings, sources: tuple[Source, ...]) -> None:
    async with open_media_directory(settings) as store:
        for source in sources:
            await _copy(source.path, store, source.key)


async def _copy(path: Path, store: Storage, key: str) -> None:
    with path.open("rb") as file:
        async with store.writer(key, WriteOptions(content_type="video/mp4")) as writer:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await writer.write(chunk)


async def _travel(client: SpoolClient, footage: Footage, clock: SystemClock) -> Journey:
    """Announce the sources, ask for the clip, and follow the stream of events until it is answered."""
    announced_ids: list[str] = []
    for source in footage.sources:
        announced = SourceAvailable(
            camera_id=footage.camera_id,
            key=source.key,
            start_timestamp_in_ms=source.span.start_ms,
            end_timestamp_in_ms=source.span.end_ms,
            size_bytes=source.path.stat().st_size,
        )
        announced_ids.append(await _publish(client, announced, clock))
    await _wait_until_indexed(client, announced_ids)

    request = ClipRequested(
        clip_id=new_id(clock),
        camera_id=footage.camera_id,
        start_timestamp_in_ms=footage.wanted.start_ms,
        end_timestamp_in_ms=footage.wanted.end_ms,
    )
    began_s = time.monotonic()
    await _publish(client, request, clock)
    with shown_progress("cutting") as progress:
        watching = asyncio.create_task(_watch(client, request.clip_id, progress))
        try:
            async with asyncio.timeout(PATIENCE_S):
                events = await _events_until_answer(client, frozenset((footage.camera_id, request.clip_id)))
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await _look(client, request.clip_id, progress)  # the end may have come between two looks
    return Journey(events, time.monotonic() - began_s)


async def _publish(client: SpoolClient, data: EventData, clock: SystemClock) -> str:
    event = wrap(data, id=new_id(clock), source=EVENT_SOURCE, time_ms=clock.now_ms())
    await client.publish(event.model_dump(mode="json", exclude_none=True))
    return event.id


async def _wait_until_indexed(client: SpoolClient, announced: list[str]) -> None:
    """Wait until every source is in the clipper's index: a clip of what is not there yet is not available."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = await client.work({"type": SourceAvailable.type, "state": "done", "maxItems": LISTED})
            if set(announced) <= {work["eventId"] for work in page["work"]}:
                return
            await asyncio.sleep(LOOK_EVERY_S)


async def _watch(client: SpoolClient, clip_id: str, progress: Progress) -> None:
    """Show how much of the clip is written, until cancelled."""
    while True:
        await _look(client, clip_id, progress)
        await asyncio.sleep(LOOK_EVERY_S)


async def _look(client: SpoolClient, clip_id: str, progress: Progress) -> None:
    with suppress(NotFound):  # the request is not taken up yet
        clip = await client.clip(clip_id)
        progress(clip["progressMs"], clip["endTimestampInMs"] - clip["startTimestampInMs"])


async def _events_until_answer(client: SpoolClient, subjects: frozenset[str]) -> tuple[JsonObject, ...]:
    """Collect the events about our camera and our clip from the stream, up to the one that answers."""
    events: list[JsonObject] = []
    async with aclosing(client.follow(after=BEGINNING)) as stream:
        async for sent in stream:
            if sent.event.get("subject") not in subjects:
                continue  # of an earlier run
            events.append(sent.event)
            if sent.event["type"] in OUTCOMES:
                return tuple(events)
    raise Unavailable("the stream of events ended before the clip was answered")


async def _tell_end(page: DemoPage, directory: Path, footage: Footage, journey: Journey) -> bool:
    """Say what the clip cost, look at it, and say where it lies. Return whether it is what was asked for."""
    told = journey.outcome["data"]
    if journey.outcome["type"] != ClipAvailable.type:
        page.show_refusal(journey.outcome)
        return False
    page.show_cost(told, journey.seconds)
    media = directory / MEDIA_DIRECTORY
    clip = media / told["clip"]["key"]
    thumbnails = [media / thumbnail["key"] for thumbnail in told["thumbnails"]]
    checks = (
        *await footage.prove(clip, told["clip"]),
        check_digest(clip, told["clip"]["sha256"]),
        *([check_thumbnails(thumbnails)] if thumbnails else []),
    )
    page.show_checks(checks)
    page.show_files(clip, thumbnails)
    return page.end(checks)


def _address(running: Running) -> Address:
    return Address(running.url, running.api_key)
