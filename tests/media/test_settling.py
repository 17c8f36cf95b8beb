"""Two workers make the same object: what the other one finished is looked at, and never written over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from shared.kernel.errors import Corrupt
from shared.media.mp4.index import SourceIndex
from shared.media.probe import Proof
from shared.media.settling import settle
from shared.media.sniff import MP4
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.port import Storage, StoredObject, WriteOptions

KEY = "clips/a.mp4"
OPTIONS = WriteOptions(content_type="video/mp4")
OURS, THEIRS, WRONG = b"right, by us", b"right, by another worker", b"wrong"


async def put(storage: Storage, body: bytes, options: WriteOptions = OPTIONS) -> StoredObject:
    async with storage.writer(KEY, options) as writer:
        await writer.write(body)
    return await storage.head(KEY)


@dataclass
class TwoWorkers:
    """A way of making an object, while another worker makes it too and is done first."""

    storage: Storage
    written: list[WriteOptions] = field(default_factory=list)

    async def write(self, options: WriteOptions) -> StoredObject:
        if not self.written:
            await put(self.storage, THEIRS)
        self.written.append(options)
        return await put(self.storage, OURS, options)

    async def prove(self, stored: StoredObject) -> Proof:
        async with self.storage.read(stored.key) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        if not body.startswith(b"right"):
            raise Corrupt("not what was wanted")
        index = SourceIndex(stored, MP4, None, bytes_read=0)
        return Proof(index, duration_ms=1, video_frames=1, width=1, height=1, bytes_read=0)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[FileStorage]:
    opened = await FileStorage.open(
        tmp_path / "store", public_url="http://localhost", signing_key=b"k" * 32, clock=SystemClock()
    )
    yield opened
    await opened.close()


@pytest.mark.parametrize("before", [pytest.param(None, id="absent"), pytest.param(WRONG, id="wrong")])
async def test_what_another_worker_finishes_meanwhile_is_adopted(
    storage: FileStorage, before: bytes | None
) -> None:
    if before is not None:
        await put(storage, before)
    way = TwoWorkers(storage)
    settled = await settle(storage, KEY, OPTIONS, way)

    assert len(way.written) == 1
    assert settled.adopted
    assert settled.stored.sha256 == sha256(THEIRS).hexdigest()
