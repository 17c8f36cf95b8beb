"""What bad input gets, from the bus and over HTTP: an answer that says what is wrong, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from shared.events.clip import ClipAvailable, ClipFailed, ClipRefused, ClipRequested
from shared.events.source import SourceAvailable
from shared.runtime.clock import SystemClock
from spool.camera import Recording, frame_numbers
from tests.e2e.conftest import RECORDING_MS
from tests.e2e.running_spool import START_MS, Json, RunningSpool, clip_of

CAMERA = "cam-1"
DAY_MS = 24 * 60 * 60 * 1000


def request_body(**changes: object) -> Json:
    """Return the data of a good request, with some of it changed; None leaves a field out."""
    data = {
        "clipId": "bad",
        "cameraId": CAMERA,
        "startTimestampInMs": START_MS,
        "endTimestampInMs": START_MS + 1_000,
    } | changes
    return {name: value for name, value in data.items() if value is not None}


def source_body(**changes: object) -> Json:
    data = {
        "cameraId": CAMERA,
        "key": "a.mp4",
        "startTimestampInMs": START_MS,
        "endTimestampInMs": START_MS + RECORDING_MS,
    }
    return data | changes


def event(event_type: str, data: object, **attributes: object) -> bytes:
    envelope = {"specversion": "1.0", "id": uuid4().hex, "source": "e2e", "type": event_type, "data": data}
    return json.dumps(envelope | attributes).encode()


ASK, ANNOUNCE = ClipRequested.type, SourceAvailable.type
# (published as, its body, the field that is named)
INVALID = [
    pytest.param(ASK, b"{'clipId': 'bad', ", "body", id="not JSON"),
    pytest.param(ASK, b"\xff\xfe\x00", "body", id="not text"),
    pytest.param(ASK, b"[1, 2]", "body", id="not an object"),
    pytest.param(ASK, b"[" * 100_000, "body", id="nested without end"),
    pytest.param(ASK, event(ASK, {}, specversion="0.3"), "specversion", id="another version"),
    pytest.param(ASK, event(ASK, {}, id=""), "id", id="no id"),
    pytest.param(ASK, event("clip_wished", {}), "type", id="unknown type"),
    pytest.param(ASK, event(ASK, "text"), "data", id="data that is no object"),
    pytest.param(ASK, event(ASK, request_body(cameraId=None)), "data.cameraId", id="no camera"),
    pytest.param(ASK, event(ASK, request_body(clipId="../x")), "data.clipId", id="an id that is a path"),
    pytest.param(
        ASK,
        event(ASK, request_body(endTimestampInMs="soon")),
        "data.endTimestampInMs",
        id="a moment in words",
    ),
    pytest.param(
        ASK, event(ASK, request_body(startTimestampInMs=-1)), "data.startTimestampInMs", id="before 1970"
    ),
    pytest.param(
        ANNOUNCE, event(ANNOUNCE, source_body(key="../../etc/passwd")), "data.key", id="a key that leaves"
    ),
    pytest.param(ANNOUNCE, event(ANNOUNCE, source_body(key="/etc/passwd")), "data.key", id="a path as a key"),
    pytest.param(
        ANNOUNCE,
        event(ANNOUNCE, source_body(key=".spool-meta/x")),
        "data.key",
        id="a key that is Spool's own",
    ),
    pytest.param(
        ANNOUNCE,
        event(ANNOUNCE, source_body(endTimestampInMs=START_MS)),
        "data.endTimestampInMs",
        id="a source without length",
    ),
]


@pytest.mark.parametrize(("event_type", "body", "field"), INVALID)
async def test_an_invalid_event_is_a_dead_letter_or_a_422_that_names_the_field(
    *, spool: RunningSpool, event_type: str, body: bytes, field: str
) -> None:
    posted = await spool.http.post("/api/v1/events", content=body)
    events = (await spool.get("/api/v1/events"))["events"]
    await spool.publish_bytes(event_type, body, uuid4().hex)
    letter = (await spool.dead_letters(1))[0]
    kept = await spool.get(f"/api/v1/dead-letters/{letter['id']}")

    assert posted.status_code == 422, posted.text
    assert {"error", "message", "details"} == posted.json().keys()
    assert field in [detail["field"] for detail in posted.json()["details"]]
    assert events == []
    assert letter["reason"].startswith(f"{field}: ") or f"; {field}: " in letter["reason"], letter
    assert (letter["origin"], letter["consumer"]) == ("inbox", f"clipper.{event_type}")
    assert letter["attempt"] <= 1
    assert kept["bodyBase64"]


async def test_invalid_events_are_not_tried_again_and_hold_nothing_up(
    spool: RunningSpool, recordings: tuple[Recording, Recording]
) -> None:
    for param in INVALID:
        event_type, body, _ = param.values
        assert isinstance(event_type, str)
        assert isinstance(body, bytes)
        await spool.publish_bytes(event_type, body, uuid4().hex)
    before = await spool.dead_letters(len(INVALID))

    await spool.add(CAMERA, *recordings)
    answer = await spool.answer(clip_of("good", CAMERA, 1_000, 2_000))

    assert answer.type == ClipAvailable.type
    assert await spool.dead_letters(0) == before
    assert await spool.metric("spool_received_messages_total", result="dead") >= len(INVALID)


REFUSED = [
    pytest.param(lambda _: (START_MS + 2_000, START_MS + 1_000), "end_before_start", id="end before start"),
    pytest.param(lambda _: (START_MS, START_MS), "zero_length", id="zero length"),
    pytest.param(lambda _: (START_MS, START_MS + 600_001), "too_long", id="too long"),
    pytest.param(
        lambda now_ms: (now_ms + DAY_MS + 60_000, now_ms + DAY_MS + 61_000),
        "in_the_future",
        id="in the future",
    ),
]


@pytest.mark.parametrize(("moments", "reason"), REFUSED)
async def test_a_request_that_nobody_could_cut_is_refused(
    spool: RunningSpool, moments: Callable[[int], tuple[int, int]], reason: str
) -> None:
    start_ms, end_ms = moments(SystemClock().now_ms())
    request = ClipRequested(
        clip_id="never", camera_id=CAMERA, start_timestamp_in_ms=start_ms, end_timestamp_in_ms=end_ms
    )

    answer = await spool.answer(request)
    posted = await spool.post_clip("never-2", CAMERA, start_ms, end_ms)
    page = await spool.get("/api/v1/work", type=ASK)

    assert (answer.type, answer.data["reason"]) == (ClipRefused.type, reason)
    assert (answer.data["field"], answer.data["clipId"]) == ("endTimestampInMs", "never")
    assert (posted.status_code, posted.json()["error"]) == (422, "refused")
    assert posted.json()["details"] == [{"field": "endTimestampInMs", "message": answer.data["message"]}]
    assert [(work["state"], work["attempt"]) for work in page["work"]] == [("done", 1)]
    assert (await spool.http.get("/api/v1/clips/never-2")).status_code == 404


@dataclass(slots=True)
class Trap:
    """Something on the network that nobody may speak to, and a file that nobody may open."""

    port: int
    fifo: Path
    connections: int = 0

    def untouched(self) -> bool:
        return self.connections == 0 and not self._is_open()

    def _is_open(self) -> bool:
        """Say whether somebody waits to read the FIFO: only then can it be opened for writing."""
        try:
            os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True


@asynccontextmanager
async def trap_set(directory: Path) -> AsyncIterator[Trap]:
    fifo = directory / "secret.mp4"
    os.mkfifo(fifo)  # whoever opens it waits for ever, so that no answer would come either

    async def notice(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trap.connections += 1
        writer.close()

    server = await asyncio.start_server(notice, "127.0.0.1", 0)
    trap = Trap(server.sockets[0].getsockname()[1], fifo)
    async with server:
        yield trap


def playlist(trap: Trap) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:9"]
    for address in (f"http://127.0.0.1:{trap.port}/a.ts", f"file://{trap.fifo}", str(trap.fifo)):
        lines += ["#EXTINF:9,", address]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


def concat_list(trap: Trap) -> bytes:
    return f"ffconcat version 1.0\nfile http://127.0.0.1:{trap.port}/a.mp4\nfile {trap.fifo}\n".encode()


def session_description(trap: Trap) -> bytes:
    return (
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {trap.port} RTP/AVP 96\n".encode()
    )


def dash_manifest(trap: Trap) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        "<Period><AdaptationSet>"
        f'<Representation id="1"><BaseURL>http://127.0.0.1:{trap.port}/a.mp4</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    ).encode()


Content = Callable[[bytes, Trap], bytes | None]
BAD_SOURCES: dict[str, tuple[Content, str]] = {
    "missing": (lambda whole, trap: None, "missing"),
    "empty": (lambda whole, trap: b"", "empty"),
    "truncated": (lambda whole, trap: whole[: len(whole) // 2], "truncated"),
    "text": (lambda whole, trap: b"this is no recording\n" * 200, "text file"),
    "playlist": (lambda whole, trap: playlist(trap), "playlist"),
    "concat-list": (lambda whole, trap: concat_list(trap), "text file"),
    "session": (lambda whole, trap: session_description(trap), "text file"),
    "manifest": (lambda whole, trap: dash_manifest(trap), "text file"),
    "larger": (lambda whole, trap: whole + bytes(1000), "larger than announced"),
}


@pytest.mark.parametrize("declares_size", [True, False], ids=["with its size", "without its size"])
async def test_a_bad_source_fails_its_clip_by_name_and_harms_nothing(
    *, spool: RunningSpool, recordings: tuple[Recording, Recording], declares_size: bool, tmp_path: Path
) -> None:
    whole = recordings[0].path.read_bytes()
    # Without a declared size nothing can be larger than declared.
    wrong = {name: bad for name, bad in BAD_SOURCES.items() if declares_size or name != "larger"}
    async with trap_set(tmp_path) as trap:
        answers = {}
        for name, (content, _) in wrong.items():
            stored = content(whole, trap)
            if stored is not None:
                await spool.store(f"{name}.mp4", stored)
            size_bytes = len(whole if name in ("larger", "truncated", "missing") else stored or b"")
            await spool.announce(
                name,
                f"{name}.mp4",
                duration_ms=RECORDING_MS,
                size_bytes=size_bytes if declares_size else None,
            )
            await spool.indexed(name, 1)
            answers[name] = await spool.answer(clip_of(f"of-{name}", name, 1_000, 2_000))

        assert trap.untouched()

    for name, (_, reason) in wrong.items():
        told = answers[name].data
        assert (answers[name].type, told["fault"]) == (ClipFailed.type, "source"), told
        assert told["sourceKey"] == f"{name}.mp4"
        assert f"{name}.mp4" in told["reason"]
        assert reason in told["reason"], told
        assert told["next"]
    await spool.add(CAMERA, *recordings)
    good = await spool.answer(clip_of("good", CAMERA, 1_000, 2_000))
    assert good.type == ClipAvailable.type
    assert await frame_numbers(await spool.fetch("good", tmp_path / "good.mp4")) == list(range(30, 60))
    # A clip that failed is an answer, not work that is tried again.
    assert (await spool.get("/api/v1/dead-letters"))["deadLetters"] == []
    page = await spool.get("/api/v1/work", type=ASK)
    assert {(work["state"], work["attempt"]) for work in page["work"]} == {("done", 1)}


async def test_a_source_that_was_mended_gives_its_clip_when_asked_again(
    spool: RunningSpool, recordings: tuple[Recording, Recording]
) -> None:
    whole = recordings[0].path.read_bytes()
    await spool.store("late.mp4", whole[:1000])
    await spool.announce(CAMERA, "late.mp4", duration_ms=RECORDING_MS, size_bytes=None)
    await spool.indexed(CAMERA, 1)
    request = clip_of("mended", CAMERA, 1_000, 2_000)
    failed = await spool.answer(request)

    await spool.store("late.mp4", whole)
    answer = await spool.answer(request, count=2)

    assert (failed.type, failed.data["revision"]) == (ClipFailed.type, 1)
    assert (answer.type, answer.data["revision"]) == (ClipAvailable.type, 2)
