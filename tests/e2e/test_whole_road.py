"""The whole road, from the event that asks to the event that answers, on every kind of address."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import pytest

from shared.events.clip import ClipAvailable, ClipRefused, ClipRequested
from spool.camera import Camera, Recording, frame_hashes, frame_numbers, record
from spool.clip_file import describe_file
from spool.migrations import migrate
from spool.proof import shown_hashes
from tests.e2e.running_spool import (
    START_MS,
    Addresses,
    RunningSpool,
    clip_of,
    running_spool,
    spool_settings,
)
from tests.integration.tcp_proxy import open_proxy
from tests.media.studio import frames_between

CAMERA = "cam-1"
RATE = Fraction(30)
FOOTAGE = Path(__file__).resolve().parents[3] / "shared" / "media"


@pytest.fixture
def addresses(request: pytest.FixtureRequest) -> Addresses:
    """Return the addresses that the parameters name; only those servers are asked for."""
    bus, storage, database = request.param
    remote = {"rabbitmq": "rabbitmq", "aws": "aws_url"}
    return Addresses(
        bus=request.getfixturevalue(remote[bus]) if bus in remote else "local:",
        storage=request.getfixturevalue("s3_url") if storage == "s3" else None,
        database=request.getfixturevalue("postgres_url") if database == "postgresql" else None,
    )


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param((bus, storage, database), id=f"{bus}, {storage}, {database}")
        for bus, storage, database in (
            *product(("local", "rabbitmq"), ("file", "s3"), ("sqlite", "postgresql")),
            ("aws", "file", "sqlite"),
            ("aws", "s3", "postgresql"),
        )
    ],
    indirect=True,
)
async def test_a_clip_across_two_files_is_exact_at_both_ends(
    addresses: Addresses, recordings: tuple[Recording, Recording], tmp_path: Path
) -> None:
    if addresses.database:
        await migrate(addresses.database)
    async with running_spool(spool_settings(tmp_path / "data", addresses)) as spool:
        await spool.add(CAMERA, *recordings)
        answer = await spool.answer(clip_of("joint", CAMERA, 4_321, 8_765))
        clip = await spool.fetch("joint", tmp_path / "joint.mp4")
        shown = await spool.get("/api/v1/clips/joint")

    told = answer.data
    assert answer.type == ClipAvailable.type, told
    assert await frame_numbers(clip) == frames_between(4_321, 8_765, RATE)
    assert told["clip"]["videoFrames"] == len(frames_between(4_321, 8_765, RATE))
    assert told["clip"]["durationMs"] == 8_765 - 4_321
    assert told["clip"]["sha256"] == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert told["clip"]["reencoded"] is False
    assert told["sourceKeys"] == [f"{CAMERA}/first.mp4", f"{CAMERA}/second.mp4"]
    assert [thumbnail["size"] for thumbnail in told["thumbnails"]] == ["original", "300", "640"]
    assert (shown["status"], shown["result"]) == ("available", told)


RECORDED = [
    pytest.param(FOOTAGE / name, span, id=f"{name} from {span[0]} ms")
    for name, span in (
        ("car-detection.mp4", (3_210, 9_876)),
        ("bottle-detection.mp4", (12_345, 23_456)),
        ("bigbuckbunny.mp4", (1_010, 4_990)),
    )
    if (FOOTAGE / name).exists()
]


@pytest.mark.parametrize(("path", "span"), [pytest.param(None, (1_111, 4_444), id="made here"), *RECORDED])
async def test_the_frames_of_a_clip_are_the_sources_frames_by_their_pixels(
    *,
    spool: RunningSpool,
    recordings: tuple[Recording, Recording],
    path: Path | None,
    span: tuple[int, int],
    tmp_path: Path,
) -> None:
    path = path or recordings[0].path
    content = path.read_bytes()
    info = await describe_file(path)
    await spool.store("real.mp4", content)
    await spool.announce(CAMERA, "real.mp4", duration_ms=info.duration_ms, size_bytes=len(content))

    answer = await spool.answer(clip_of("real", CAMERA, *span))

    assert answer.type == ClipAvailable.type, answer.data
    expected = await shown_hashes(path, start_ms=span[0], end_ms=span[1])
    assert len(expected) > 10
    assert await frame_hashes(await spool.fetch("real", tmp_path / "clip.mp4")) == expected
    assert answer.data["clip"]["reencoded"] is False


async def test_a_recording_that_was_cut_off_is_shown_up_to_its_end_and_the_loss_is_told(
    spool: RunningSpool, tmp_path: Path
) -> None:
    camera = Camera(
        width=160, height=90, encoder_options=("-movflags", "+frag_keyframe+empty_moov+delay_moov")
    )
    recording = await record(tmp_path / "in.mp4", start_ms=0, duration_ms=8_000, camera=camera)
    whole = recording.path.read_bytes()
    await spool.store("crashed.mp4", whole[: len(whole) * 4 // 5])
    await spool.announce(CAMERA, "crashed.mp4", duration_ms=8_000, size_bytes=len(whole))

    answer = await spool.answer(clip_of("saved", CAMERA, 1_234, 7_890))

    assert answer.type == ClipAvailable.type, answer.data
    [lost] = answer.data["missing"]
    shown_ms = lost["startTimestampInMs"] - START_MS
    shown = await frame_numbers(await spool.fetch("saved", tmp_path / "clip.mp4"))
    assert shown == frames_between(1_234, shown_ms, RATE)
    assert lost["endTimestampInMs"] - START_MS == 7_890
    assert answer.data["clip"]["durationMs"] == shown_ms - 1_234
    assert answer.data["clip"]["shownRange"]["endTimestampInMs"] == lost["startTimestampInMs"]


async def test_the_same_request_again_is_answered_under_the_same_event_id_without_work(
    spool: RunningSpool, recordings: tuple[Recording, Recording]
) -> None:
    await spool.add(CAMERA, *recordings)
    request = clip_of("twice", CAMERA, 1_000, 2_000)

    first = await spool.answer(request)
    before = [
        await spool.metric(name) for name in ("spool_ffmpeg_runs_total", "spool_storage_read_bytes_total")
    ]
    again = await spool.answer(request, count=2)
    after = [
        await spool.metric(name) for name in ("spool_ffmpeg_runs_total", "spool_storage_read_bytes_total")
    ]

    assert first.type == ClipAvailable.type
    assert (again.id, again.data) == (first.id, first.data)
    assert before == after
    assert before[0] > 0


async def test_an_event_that_comes_twice_is_worked_once(
    spool: RunningSpool, recordings: tuple[Recording, Recording]
) -> None:
    await spool.add(CAMERA, *recordings)
    request = clip_of("redelivered", CAMERA, 1_000, 2_000)

    await spool.publish(request, event_id="the-same")
    await spool.publish(request, event_id="the-same")
    await spool.answer(clip_of("later", CAMERA, 1_000, 2_000))

    page = await spool.get("/api/v1/work", type=ClipRequested.type, subject="redelivered")
    assert [(work["eventId"], work["attempt"]) for work in page["work"]] == [("the-same", 1)]
    assert len(await spool.ears.answers("redelivered")) == 1


async def test_another_request_under_the_same_id_is_a_conflicting_duplicate(
    spool: RunningSpool, recordings: tuple[Recording, Recording], tmp_path: Path
) -> None:
    await spool.add(CAMERA, *recordings)
    first = await spool.answer(clip_of("taken", CAMERA, 1_000, 2_000))

    second = await spool.answer(clip_of("taken", CAMERA, 1_000, 3_000), count=2)
    posted = await spool.post_clip("taken", CAMERA, START_MS + 1_000, START_MS + 3_000)

    assert (second.type, second.data["reason"]) == (ClipRefused.type, "conflicting_duplicate")
    assert (posted.status_code, posted.json()["error"]) == (409, "conflict")
    assert "taken" in posted.json()["message"]
    shown = await spool.get("/api/v1/clips/taken")
    assert (shown["status"], shown["result"]) == ("available", first.data)
    assert await frame_numbers(await spool.fetch("taken", tmp_path / "clip.mp4")) == list(range(30, 60))


async def test_a_range_that_was_not_recorded_is_told_with_what_is_missing(
    spool: RunningSpool, recordings: tuple[Recording, Recording]
) -> None:
    await spool.add(CAMERA, recordings[0])

    answer = await spool.answer(clip_of("gap", CAMERA, 5_000, 9_000))

    missing = [{"startTimestampInMs": START_MS + 6_000, "endTimestampInMs": START_MS + 9_000}]
    assert (answer.type, answer.data["missing"]) == ("clip_not_available", missing)


async def test_a_source_that_is_announced_after_the_request_is_waited_for(
    spool: RunningSpool, recordings: tuple[Recording, Recording]
) -> None:
    await spool.publish(clip_of("early", CAMERA, 1_000, 2_000))
    await spool.until("/api/v1/work", lambda page: bool(page["work"]), type=ClipRequested.type)

    await spool.add(CAMERA, *recordings)

    assert (await spool.ears.answers("early"))[0].type == ClipAvailable.type


async def test_a_restart_keeps_clips_sources_and_the_key(
    recordings: tuple[Recording, Recording], tmp_path: Path
) -> None:
    settings = spool_settings(tmp_path / "data")
    async with running_spool(settings) as spool:
        await spool.add(CAMERA, *recordings)
        before = await spool.answer(clip_of("kept", CAMERA, 1_000, 2_000))
        key = spool.running.api_key

    async with running_spool(settings) as spool:
        assert (spool.running.api_key, spool.running.key_is_new) == (key, False)
        assert (await spool.get("/api/v1/clips/kept"))["result"] == before.data
        assert await frame_numbers(await spool.fetch("kept", tmp_path / "a.mp4")) == list(range(30, 60))
        after = await spool.answer(clip_of("fresh", CAMERA, 5_000, 7_000))

    assert after.type == ClipAvailable.type


async def test_a_bare_camera_message_with_single_quotes_in_the_queue_is_answered(
    rabbitmq: str, recordings: tuple[Recording, Recording], tmp_path: Path
) -> None:
    message = (
        f"{{'clipId': 'bare', 'cameraId': '{CAMERA}', 'startTimestampInMs': '{START_MS + 1_000}', "
        f"'endTimestampInMs': {START_MS + 2_000}, 'retryTimestamps': []}}"
    )
    async with running_spool(spool_settings(tmp_path / "data", Addresses(bus=rabbitmq))) as spool:
        await spool.add(CAMERA, *recordings)
        async with await aio_pika.connect(rabbitmq) as connection:
            channel = await connection.channel()
            # Straight into the queue, as a publisher does that knows nothing of exchanges.
            await channel.default_exchange.publish(
                aio_pika.Message(message.encode()), routing_key=f"clipper.{ClipRequested.type}"
            )
        answer = (await spool.ears.answers("bare"))[0]
        clip = await spool.fetch("bare", tmp_path / "clip.mp4")

    assert answer.type == ClipAvailable.type, answer.data
    assert await frame_numbers(clip) == list(range(30, 60))


async def test_a_clip_that_is_asked_for_while_the_broker_is_away_is_made_when_it_is_back(
    rabbitmq: str, recordings: tuple[Recording, Recording], tmp_path: Path
) -> None:
    broker = urlsplit(rabbitmq)
    async with open_proxy(broker.hostname or "", broker.port or 5672) as proxy:
        by_proxy = broker._replace(netloc=broker.netloc.replace(str(broker.port), str(proxy.port))).geturl()
        async with running_spool(spool_settings(tmp_path / "data", Addresses(bus=by_proxy))) as spool:
            await spool.add(CAMERA, *recordings)
            await spool.until("/api/v1/work", lambda page: len(page["work"]) == 2, state="done")

            await proxy.refuse()
            posted = await spool.post_clip("patient", CAMERA, START_MS + 1_000, START_MS + 2_000)
            waiting = await spool.get("/api/v1/clips/patient")
            health = await spool.http.get("/health/ready")
            await proxy.accept()
            answer = (await spool.ears.answers("patient"))[0]

    assert (posted.status_code, posted.json()["status"]) == (202, "requested")
    assert waiting["status"] == "requested"
    assert (health.status_code, [*health.json()["problems"]]) == (503, ["bus"])
    assert answer.type == ClipAvailable.type, answer.data
