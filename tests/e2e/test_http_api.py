"""The HTTP API of a running Spool, route by route, with a clip that was really made."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from shared.events.clip import ClipAvailable, ClipFailed, ClipRequested
from shared.events.envelope import wrap
from spool.camera import Recording
from tests.e2e.running_spool import (
    START_MS,
    Json,
    RunningSpool,
    clip_of,
    running_spool,
    spool_settings,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CAMERA = "cam-1"
CLIP = "watched"
MEDIA = f"/api/v1/clips/{CLIP}/media"
METHODS = ("get", "post", "put", "patch", "delete", "head")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spool(
    tmp_path_factory: pytest.TempPathFactory, recordings: tuple[Recording, Recording]
) -> AsyncIterator[RunningSpool]:
    """Run one Spool for the module, with a clip of two seconds across two sources in it."""
    async with running_spool(spool_settings(tmp_path_factory.mktemp("api") / "data")) as running:
        await running.add(CAMERA, *recordings)
        answer = await running.answer(clip_of(CLIP, CAMERA, 5_000, 7_000))
        assert answer.type == ClipAvailable.type, answer.data
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def content(spool: RunningSpool) -> bytes:
    return (await spool.http.get(MEDIA)).content


async def test_a_clip_that_is_asked_for_is_accepted_and_lies_at_its_location(spool: RunningSpool) -> None:
    posted = await spool.post_clip("asked", CAMERA, START_MS + 1_000, START_MS + 2_000)
    answer = (await spool.ears.answers("asked"))[0]
    shown = await spool.get(posted.headers["location"])

    assert posted.status_code == 202
    assert posted.headers["location"] == "/api/v1/clips/asked"
    assert (posted.json()["status"], posted.json()["result"]) == ("requested", None)
    assert (shown["status"], shown["resultType"]) == ("available", ClipAvailable.type)
    assert shown["result"] == answer.data
    assert shown["progressMs"] == 1_000


async def test_a_clip_without_an_id_gets_one(spool: RunningSpool) -> None:
    body = {
        "cameraId": CAMERA,
        "startTimestampInMs": START_MS + 1_000,
        "endTimestampInMs": START_MS + 1_500,
    }
    first = await spool.http.post("/api/v1/clips", json=body)
    second = await spool.http.post("/api/v1/clips", json=body)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["clipId"] != second.json()["clipId"]
    assert (await spool.ears.answers(first.json()["clipId"]))[0].type == ClipAvailable.type


async def test_the_same_body_again_is_accepted_and_makes_no_second_event(spool: RunningSpool) -> None:
    again = await spool.post_clip(CLIP, CAMERA, START_MS + 5_000, START_MS + 7_000)

    asked = [
        told["event"]
        for told in (await spool.get("/api/v1/events", maxItems=500))["events"]
        if told["event"]["type"] == ClipRequested.type and told["event"]["subject"] == CLIP
    ]
    assert (again.status_code, again.json()["status"]) == (202, "available")
    assert asked == []  # the first request came over the bus, and this one asked for nothing new


async def test_a_cloud_event_is_taken_and_told_under_its_own_id(spool: RunningSpool) -> None:
    request = clip_of("by-event", CAMERA, 2_000, 3_000)
    event = wrap(request, id="my-id", source="e2e", time_ms=START_MS)

    posted = await spool.http.post("/api/v1/events", content=event.to_bytes())
    answer = (await spool.ears.answers("by-event"))[0]
    page = await spool.get("/api/v1/work", subject="by-event")

    assert (posted.status_code, posted.json()) == (202, {"id": "my-id"})
    assert answer.type == ClipAvailable.type
    assert [work["eventId"] for work in page["work"]] == ["my-id"]


async def test_pages_show_every_clip_once_although_others_are_added_meanwhile(spool: RunningSpool) -> None:
    async def ask(number: int) -> str:
        start_ms = START_MS + 100_000 + 10_000 * number  # where nothing was recorded
        posted = await spool.post_clip(f"page-{number}", "cam-pages", start_ms, start_ms + 1_000)
        return str(posted.json()["clipId"])

    asked = [await ask(number) for number in range(5)]
    seen: list[str] = []
    parameters: dict[str, str | int] = {"cameraId": "cam-pages", "maxItems": 2}
    page: Json = {}
    for number in range(5, 8):
        page = await spool.get("/api/v1/clips", **parameters)
        seen += [clip["clipId"] for clip in page["clips"]]
        await ask(number)
        parameters["nextPageToken"] = page["nextPageToken"]

    assert seen == asked[::-1]
    assert page["nextPageToken"] is None
    everything = await spool.get("/api/v1/clips", cameraId="cam-pages", maxItems=500)
    assert len(everything["clips"]) == 8
    assert everything["nextPageToken"] is None


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        pytest.param({"cameraId": CAMERA}, True, id="its camera"),
        pytest.param({"cameraId": "cam-2"}, False, id="another camera"),
        pytest.param({"status": "available"}, True, id="its status"),
        pytest.param({"status": "failed"}, False, id="another status"),
        pytest.param({"from": START_MS + 6_999}, True, id="until after from"),
        pytest.param({"from": START_MS + 7_000}, False, id="until from"),
        pytest.param({"to": START_MS + 5_001}, True, id="starts before to"),
        pytest.param({"to": START_MS + 5_000}, False, id="starts at to"),
        pytest.param(
            {"cameraId": CAMERA, "status": "available", "from": START_MS, "to": START_MS + 6_000},
            True,
            id="all at once",
        ),
    ],
)
async def test_clips_are_filtered(spool: RunningSpool, parameters: dict[str, str | int], found: bool) -> None:
    page = await spool.get("/api/v1/clips", maxItems=500, **parameters)

    assert (CLIP in [clip["clipId"] for clip in page["clips"]]) is found


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        pytest.param({"maxItems": 0}, "maxItems", id="no items"),
        pytest.param({"maxItems": 501}, "maxItems", id="too many items"),
        pytest.param({"status": "lost"}, "status", id="unknown status"),
        pytest.param({"from": "yesterday"}, "from", id="a moment in words"),
        pytest.param({"cameraId": "../x"}, "cameraId", id="a camera that is a path"),
        pytest.param({"nextPageToken": "garbage"}, "nextPageToken", id="a token of nobody"),
    ],
)
async def test_a_wrong_filter_is_named(
    spool: RunningSpool, parameters: dict[str, str | int], field: str
) -> None:
    answer = await spool.http.get("/api/v1/clips", params=parameters)

    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("/api/v1/clips/nobody", "nobody", id="clip"),
        pytest.param("/api/v1/clips/nobody/media", "nobody", id="its media"),
        pytest.param(f"/api/v1/clips/{CLIP}/thumbnails/301", "it has original, 300, 640", id="thumbnail"),
        pytest.param("/api/v1/nothing", "Not Found", id="route"),
    ],
)
async def test_what_is_not_there_is_not_found_in_the_one_form(
    spool: RunningSpool, path: str, words: str
) -> None:
    answer = await spool.http.get(path)

    assert answer.status_code == 404
    assert answer.json().keys() == {"error", "message", "details"}
    assert answer.json()["error"] == "not_found"
    assert words in answer.json()["message"]


async def test_a_clip_that_was_not_made_has_no_media(spool: RunningSpool) -> None:
    await spool.answer(clip_of("nothing", "cam-empty", 0, 1_000))

    answer = await spool.http.get("/api/v1/clips/nothing/media")

    assert answer.status_code == 404
    assert "not available" in answer.json()["message"]


@pytest.mark.parametrize(
    ("asked", "of"),
    [
        pytest.param("0-99", lambda size: (0, 100), id="a-b"),
        pytest.param("100-100", lambda size: (100, 101), id="one byte"),
        pytest.param("100-", lambda size: (100, size), id="a-"),
        pytest.param("-100", lambda size: (size - 100, size), id="-n"),
        pytest.param("5-999999999", lambda size: (5, size), id="beyond the end"),
        pytest.param("-999999999", lambda size: (0, size), id="more than there is"),
    ],
)
async def test_a_range_of_a_clip_is_sent(
    *, spool: RunningSpool, content: bytes, asked: str, of: object
) -> None:
    assert callable(of)
    start, end = of(len(content))

    answer = await spool.http.get(MEDIA, headers={"range": f"bytes={asked}"})

    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(content)}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.content == content[start:end]


async def test_a_range_outside_of_a_clip_is_refused_with_its_size(
    spool: RunningSpool, content: bytes
) -> None:
    answer = await spool.http.get(MEDIA, headers={"range": f"bytes={len(content)}-"})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(content)}"
    assert answer.json()["error"] == "range_not_satisfiable"


async def test_a_clip_is_cached_in_private_and_not_sent_again(spool: RunningSpool, content: bytes) -> None:
    whole = await spool.http.get(MEDIA)
    head = await spool.http.head(MEDIA)
    known = await spool.http.get(MEDIA, headers={"if-none-match": whole.headers["etag"]})
    other = await spool.http.get(MEDIA, headers={"if-none-match": '"another"'})
    stale = await spool.http.get(MEDIA, headers={"range": "bytes=0-9", "if-range": '"another"'})

    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert whole.headers["cache-control"].startswith("private")
    assert whole.headers["accept-ranges"] == "bytes"
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(content))
    assert head.headers["etag"] == whole.headers["etag"]
    assert (known.status_code, known.content) == (304, b"")
    assert (other.status_code, len(other.content)) == (200, len(content))
    assert (stale.status_code, len(stale.content)) == (200, len(content))


@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        pytest.param("original", (320, 180), id="original"),
        pytest.param("300", (300, 169), id="smaller"),
        pytest.param("640", (320, 180), id="never enlarged"),
    ],
)
async def test_a_thumbnail_is_a_jpeg_of_its_width(
    spool: RunningSpool, size: str, pixels: tuple[int, int]
) -> None:
    path = f"/api/v1/clips/{CLIP}/thumbnails/{size}"
    answer = await spool.http.get(path)
    known = await spool.http.get(path, headers={"if-none-match": answer.headers["etag"]})
    result = (await spool.get(f"/api/v1/clips/{CLIP}"))["result"]

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"].startswith("private")
    assert known.status_code == 304
    assert jpeg_pixels(answer.content) == pixels
    told = {
        thumbnail["size"]: (thumbnail["width"], thumbnail["height"]) for thumbnail in result["thumbnails"]
    }
    assert told[size] == pixels


def jpeg_pixels(jpeg: bytes) -> tuple[int, int]:
    """Read width and height from a JPEG's frame header."""
    at = 2
    while jpeg[at + 1] not in (0xC0, 0xC2):
        at += 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    height, width = struct.unpack_from(">HH", jpeg, at + 5)
    return width, height


async def test_a_signed_address_needs_no_key_and_cannot_be_changed(
    spool: RunningSpool, content: bytes
) -> None:
    key = (await spool.get(f"/api/v1/clips/{CLIP}"))["result"]["clip"]["key"]
    url = await spool.storage.presign(key, expires_s=60)
    async with httpx.AsyncClient(trust_env=False) as anyone:
        part = await anyone.get(url, headers={"range": "bytes=10-19"})
        forged = await anyone.get(url.replace(CLIP, "asked"))
        stretched = await anyone.get(url.replace("expires=1", "expires=2"))

    assert (part.status_code, part.content) == (206, content[10:20])
    assert (forged.status_code, stretched.status_code) == (404, 404)


async def test_every_described_route_needs_a_key_except_health(spool: RunningSpool) -> None:
    described = await spool.get("/openapi.json")
    routes = [
        (method, path.replace("{", "").replace("}", ""))
        for path, item in described["paths"].items()
        for method in item
        if method in METHODS
    ]
    routes += [("get", "/docs"), ("get", "/openapi.json"), ("get", "/anything")]
    # What is lent by a signed address is protected by the signature.
    keyless = {path for _, path in routes if path.startswith(("/health/", "/media/"))}
    answers: dict[tuple[str, str, str], int] = {}
    async with httpx.AsyncClient(base_url=spool.running.url, trust_env=False) as anyone:
        for method, path in routes:
            for name, headers in (("none", {}), ("wrong", {"x-api-key": "x" * 43})):
                answer = await anyone.request(method, path, headers=headers)
                answers[method, path, name] = answer.status_code

    assert len(routes) > 12
    assert {path for (_, path, _), status in answers.items() if status != 401} == keyless
    assert keyless == {"/health/live", "/health/ready", "/media/key"}
    assert {status for (_, path, _), status in answers.items() if path.startswith("/health/")} == {200}
    assert {status for (_, path, _), status in answers.items() if path.startswith("/media/")} == {422}


async def test_the_api_is_described_and_the_page_of_it_is_served(spool: RunningSpool) -> None:
    page = await spool.http.get("/docs")
    paths: Json = (await spool.get("/openapi.json"))["paths"]

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "/openapi.json" in page.text
    assert paths.keys() >= {
        "/api/v1/events",
        "/api/v1/clips",
        "/api/v1/clips/{clip_id}",
        "/api/v1/clips/{clip_id}/media",
        "/api/v1/clips/{clip_id}/thumbnails/{width}",
        "/metrics",
        "/health/live",
        "/health/ready",
    }


async def test_a_clip_is_counted_in_events_handlers_ffmpegs_and_bytes(spool: RunningSpool) -> None:
    async def counted() -> dict[str, float]:
        asked = {"subscription": "clipper.clip_requested"}
        return {
            "accepted": await spool.metric("spool_received_messages_total", result="accepted", **asked),
            "told": await spool.metric(
                "spool_published_messages_total", status="success", type=ClipAvailable.type
            ),
            "handled": await spool.metric("spool_received_processed_messages_total", status="done", **asked),
            "timed": await spool.metric("spool_received_processed_messages_duration_seconds_count", **asked),
            "ffmpegs": await spool.metric("spool_ffmpeg_runs_total"),
            "ffmpegs timed": await spool.metric("spool_ffmpeg_duration_seconds_count"),
            "bytes in": await spool.metric("spool_storage_read_bytes_total"),
            "bytes out": await spool.metric("spool_storage_written_bytes_total"),
        }

    before = await counted()
    answer = await spool.answer(clip_of("counted", CAMERA, 3_000, 4_000))
    # What was told is counted when the broker has confirmed it: after it was heard.
    await spool.until("/api/v1/events", lambda page: page["events"][-1]["sentAt"], maxItems=500)
    after = await counted()

    more = {name: after[name] - before[name] for name in before}
    assert (more["accepted"], more["told"], more["handled"], more["timed"]) == (1, 1, 1, 1)
    assert more["ffmpegs"] == more["ffmpegs timed"] > 0
    assert more["bytes in"] >= answer.data["sourceBytesRead"] > 0
    assert more["bytes out"] > answer.data["clip"]["sizeBytes"]  # the thumbnails as well


async def test_the_first_start_makes_a_key_that_only_its_owner_can_read(spool: RunningSpool) -> None:
    path: Path = spool.running.data_directory / "api-key"

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip() == spool.running.api_key
    assert spool.running.key_is_new


async def test_work_that_a_person_cancels_ends_and_who_asked_hears_of_it(spool: RunningSpool) -> None:
    # Nothing was recorded there: the request waits a moment for sources that may just be arriving.
    await spool.post_clip("unwanted", "nowhere", START_MS, START_MS + 1_000)
    page = await spool.until("/api/v1/work", lambda page: bool(page["work"]), subject="unwanted")
    [work] = page["work"]

    answer = await spool.http.post(f"/api/v1/work/{work['id']}/cancel")
    [told] = await spool.ears.answers("unwanted")
    ended = await spool.get(f"/api/v1/work/{work['id']}")
    again = await spool.http.post(f"/api/v1/work/{work['id']}/cancel")

    assert answer.status_code == 202
    assert (told.type, told.data["reason"]) == (ClipFailed.type, "cancelled by a person")
    assert (ended["state"], ended["outcome"]) == ("dead", "cancelled")
    assert again.status_code == 409
