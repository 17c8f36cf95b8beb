"""`spool migrate` and `spool serve clipper` as an operator runs them, against real servers only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.events.clip import ClipAvailable
from shared.events.envelope import EventData, wrap
from shared.events.source import SourceAvailable
from shared.storage.port import WriteOptions
from shared.storage.s3 import S3Storage
from spool.camera import Recording, frame_numbers
from spool.client import Address, SpoolClient
from tests.e2e.running_spool import PATIENCE_S, START_MS, clip_of

CAMERA = "cam-1"


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs commands of Spool in a directory, with everything else in the environment."""

    directory: Path
    environment: dict[str, str]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        with (self.directory / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "spool", *arguments),
                cwd=self.directory,
                env=self.environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def run(self, *arguments: str) -> str:
        process = await self.start(*arguments)
        said, _ = await process.communicate()
        assert process.returncode == 0, self.log()
        return said.decode()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SpoolClient]:
        """Run the clipper until the end of the block, and let SIGTERM end it."""
        process = await self.start("serve", "clipper", "--port", "0")
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                said = (await process.stdout.readline()).decode()
            url = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert url, said + self.log()
            async with SpoolClient(Address(url[0], self.environment["SPOOL_API_KEYS"])) as client:
                yield client
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                await process.communicate()
        assert process.returncode == 0, self.log()

    def log(self) -> str:
        return (self.directory / "log").read_text()


@pytest.fixture
def operator(rabbitmq: str, postgres_url: str, s3_url: str, tmp_path: Path) -> Operator:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPOOL_")} | {
        "SPOOL_BUS": rabbitmq,
        "SPOOL_DATABASE": postgres_url,
        "SPOOL_STORAGE": s3_url,
        "SPOOL_API_KEYS": "a-key-of-this-test-only",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return Operator(tmp_path, environment)


async def publish(client: SpoolClient, data: EventData, event_id: str) -> None:
    event = wrap(data, id=event_id, source="e2e", time_ms=START_MS)
    await client.publish(event.model_dump(mode="json", exclude_none=True))


async def test_a_service_of_its_own_makes_a_clip_on_real_servers_and_ends_on_sigterm(
    operator: Operator, recordings: tuple[Recording, Recording], s3_url: str, tmp_path: Path
) -> None:
    store = await S3Storage.open(s3_url, journal=None)
    said = [await operator.run("migrate"), await operator.run("migrate")]
    async with operator.serving() as client:
        for recording in recordings:
            async with store.writer(recording.path.name, WriteOptions()) as writer:
                await writer.write(recording.path.read_bytes())
            source = SourceAvailable(
                camera_id=CAMERA,
                key=recording.path.name,
                start_timestamp_in_ms=recording.start_ms,
                end_timestamp_in_ms=recording.end_ms,
                size_bytes=recording.path.stat().st_size,
            )
            await publish(client, source, recording.path.stem)
        await publish(client, clip_of("apart", CAMERA, 4_321, 8_765), "wish")
        async with asyncio.timeout(PATIENCE_S):
            answer = await _answer(client, "apart")

    clip = tmp_path / "clip.mp4"
    async with store.read(answer["data"]["clip"]["key"]) as chunks:
        clip.write_bytes(b"".join([chunk async for chunk in chunks]))
    assert await frame_numbers(clip) == list(range(130, 263))
    assert await store.unfinished() == []
    await store.close()
    assert said[0] == said[1]
    lines = [json.loads(line) for line in operator.log().splitlines()]
    assert "service.stopped" in [line["event"] for line in lines]
    assert {line["level"] for line in lines} == {"info"}


async def _answer(client: SpoolClient, clip_id: str) -> dict[str, dict[str, dict[str, str]]]:
    """Follow the events to the one that says that the clip is there."""
    async for sent in client.follow(after="0"):
        if (sent.event["type"], sent.event["subject"]) == (ClipAvailable.type, clip_id):
            return sent.event
    raise AssertionError("the stream ended")


async def test_without_its_tables_a_service_says_what_to_run(operator: Operator) -> None:
    process = await operator.start("serve", "clipper", "--port", "0")
    async with asyncio.timeout(PATIENCE_S):
        await process.communicate()

    assert process.returncode == 1
    assert "spool migrate" in operator.log()
    assert "Traceback" not in operator.log()
