"""A clip whose samples never leave S3 is the same clip, byte for byte, as one that is read and written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.kernel.errors import Transient
from shared.media.engine import MediaEngine
from shared.media.port import Cut
from shared.observability.metrics import STORAGE_COPIED_BYTES, STORAGE_WRITTEN_BYTES
from shared.storage.port import COPIED_BYTES, Storage, WriteOptions
from shared.storage.s3 import S3Storage
from spool.camera import Camera, extend
from tests.media.conftest import SECONDS, Library
from tests.media.studio import Studio
from tests.s3_servers import VARIABLES, empty_prefix

CAMERA = Camera(width=640, height=360, gop_frames=60, encoder_options=("-b:v", "1600k"))


@pytest.fixture(params=list(VARIABLES))
async def bucket(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    storage = await S3Storage.open(empty_prefix(request.param), journal=None)
    yield storage
    await storage.close()


async def put(storage: Storage, path: Path, key: str) -> None:
    async with storage.writer(key, WriteOptions()) as writer:
        await writer.write(await asyncio.to_thread(path.read_bytes))


async def bytes_of(storage: Storage, key: str) -> bytes:
    async with storage.read(key) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_clip_inside_s3_is_the_one_that_is_read_and_written(
    studio: Studio, library: Library, bucket: Storage, tmp_path: Path
) -> None:
    recording, _ = await library.pair(CAMERA)
    await extend(recording, 96 // SECONDS, studio.path("long.mp4"))
    for key in ("long.mp4", "again.mp4"):
        await put(bucket, studio.path("long.mp4"), key)
    studio.add(studio.path("long.mp4"), "again.mp4")
    cuts = (Cut("long.mp4", 11_234, 91_234), Cut("again.mp4", 5_001, 65_001))
    engine = MediaEngine(bucket, studio.ffmpeg)
    read = await studio.cut(*cuts)
    read_before, written_before = bucket.bytes_read, STORAGE_WRITTEN_BYTES._value.get()
    copied_before = STORAGE_COPIED_BYTES._value.get()

    clip = await engine.cut(cuts, into="clip.mp4", options=WriteOptions(if_absent=True))

    size_bytes = clip.stored.size_bytes
    sent_bytes = STORAGE_WRITTEN_BYTES._value.get() - written_before
    assert await bytes_of(bucket, "clip.mp4") == await bytes_of(studio.storage, "clip.mp4")
    assert (read.copied_bytes, read.crc32) == (0, None)
    assert clip.sha256 is None
    # Of each source one part goes through here: what lies apart, and what makes a part large enough.
    assert clip.copied_bytes == size_bytes - sent_bytes
    assert sent_bytes < 2 * COPIED_BYTES + 100_000
    assert STORAGE_COPIED_BYTES._value.get() - copied_before == clip.copied_bytes
    looked_at = 2  # a byte of each source may be, to see whether the store tells its checksum
    counted = clip.source_bytes_read + clip.proof_bytes_read
    assert 0 <= bucket.bytes_read - read_before - counted - size_bytes <= looked_at
    assert clip.source_bytes_read < 2 * COPIED_BYTES + 500_000


async def test_a_source_that_is_replaced_between_two_copies_is_blamed_and_tried_again(
    studio: Studio, library: Library
) -> None:
    # Without sound each piece lies together, and nothing of it is read on its own.
    recording, _ = await library.pair(replace(CAMERA, sound=False))
    await extend(recording, 96 // SECONDS, studio.path("long.mp4"))
    cuts = (Cut("long.mp4", 0, 40_000), Cut("long.mp4", 50_000, 90_000))

    def replace_source(done_ms: int, of_ms: int) -> None:
        if 10_000 < done_ms < of_ms:
            os.utime(studio.path("long.mp4"))

    with pytest.raises(Transient, match=r"long\.mp4 was replaced"):
        await studio.engine.cut(cuts, into="clip.mp4", options=WriteOptions(), progress=replace_source)
    assert await studio.storage.unfinished() == []
