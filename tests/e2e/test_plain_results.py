"""Spool in the place of an older clip pipeline: its messages come in, and its results go out."""

from __future__ import annotations

import json
from pathlib import Path

import aio_pika

from shared.bus.rabbitmq_topology import EXCHANGE
from spool.camera import Recording
from tests.e2e.running_spool import START_MS, Addresses, running_spool, spool_settings

CAMERA = "cam-1"


async def ask_as_the_camera_service_does(amqp_url: str, clip_id: str) -> None:
    """Publish what its queue carries: Python's words, and nothing that names the event."""
    body = str(
        {
            "clipId": clip_id,
            "cameraId": CAMERA,
            "startTimestampInMs": START_MS + 1_000,
            "endTimestampInMs": str(START_MS + 2_000),
            "retryTimestamps": [],
        }
    )
    async with await aio_pika.connect(amqp_url) as connection:
        exchange = await (await connection.channel()).get_exchange(EXCHANGE)
        await exchange.publish(aio_pika.Message(body.encode()), routing_key="clip_requested")


async def test_results_go_out_as_the_older_pipeline_sends_them(
    rabbitmq: str, recordings: tuple[Recording, Recording], tmp_path: Path
) -> None:
    settings = spool_settings(tmp_path / "data", Addresses(bus=rabbitmq))
    plain = settings.model_copy(
        update={"bus_format": "plain", "bus_plain_url": "https://camclips.example.org"}
    )
    async with running_spool(plain) as spool:
        await spool.add(CAMERA, recordings[0])
        # By HTTP: the command passes Spool's own bus in plain form as well, and is worked once.
        await spool.post_clip("posted", CAMERA, START_MS, START_MS + 1_000)
        await spool.ears.plain_answers(1)
        await ask_as_the_camera_service_does(rabbitmq, "asked")
        answers = await spool.ears.plain_answers(2)
        work = await spool.get("/api/v1/work", type="clip_requested")
        (told,) = (
            event["event"]
            for event in (await spool.get("/api/v1/events"))["events"]
            if event["event"]["type"] == "clip_available" and event["event"]["subject"] == "asked"
        )

    by_clip = {json.loads(answer.body)["clipId"]: answer for answer in answers}
    assert json.loads(by_clip["asked"].body) == {
        "clipId": "asked",
        "cameraId": CAMERA,
        "startTimestampInMs": START_MS + 1_000,
        "endTimestampInMs": START_MS + 2_000,
        "status": "CLIP_AVAILABLE",
        "bucket": "",
        "clip": {
            "key": "/clips/cam-1/asked.mp4",
            "url": "https://camclips.example.org/clips/cam-1/asked.mp4",
        },
        "retryTimestamps": [],
        "thumbnail": {
            "key": "/clips/cam-1/asked_{size}.jpg",
            "url": "https://camclips.example.org/clips/cam-1/asked_{size}.jpg",
            "sizes": [300, 640],
        },
    }
    assert by_clip["asked"].message_id == by_clip["asked"].headers["cloudEvents_id"] == told["id"]
    assert by_clip["asked"].headers["traceparent"] == told["traceparent"]
    assert sorted(row["subject"] for row in work["work"]) == ["asked", "posted"]
    assert spool.ears.heard == []
