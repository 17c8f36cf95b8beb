"""What every store promises of bytes that it copies, and of heads that come last.

On a directory, and on S3 servers, which differ in what they can copy.
"""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from shared.kernel.errors import Bug, Conflict, Corrupt, NotFound
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.port import COPIED_BYTES, Storage, StoredObject, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_bucket import Copying
from spool.one_file import OneFile
from spool.two_places import RESULT, Slot, TwoPlaces
from tests.s3_servers import MINIO, SEAWEEDFS, VERSITYGW, empty_prefix

MIB = 1 << 20
SOURCE = Random(7).randbytes(17 * MIB + 5)
HEAD = b"ftyp and moov"
COPIES = {  # what each server was seen to do
    SEAWEEDFS: Copying.CHECKED,
    VERSITYGW: Copying.UNCHECKED,  # it tells the checksum of the source, not of the range
    MINIO: Copying.UNCHECKED,
}


@dataclass(frozen=True, slots=True)
class Place:
    """A store with a source in it, and what it can copy by itself."""

    storage: Storage
    source: StoredObject
    copying: Copying

    async def write(self, *steps: bytes | tuple[int, int]) -> tuple[StoredObject, int]:
        """Write bytes and ranges of the source one after another; returns what was copied inside, too."""
        copied_bytes = 0
        async with self.storage.writer("clip", WriteOptions(content_type="video/mp4")) as writer:
            for step in steps:
                if isinstance(step, bytes):
                    await writer.write(step)
                else:
                    copied_bytes += await writer.copy(self.source, *step)
        return writer.stored, copied_bytes

    async def holds(self, key: str) -> bytes:
        async with self.storage.read(key) as chunks:
            return b"".join([chunk async for chunk in chunks])


@pytest.fixture(params=["file", *COPIES])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as resources:
        storage: Storage
        if request.param == "file":
            storage = await FileStorage.open(
                tmp_path / "media", public_url="", signing_key=b"k", clock=SystemClock()
            )
        else:
            storage = await S3Storage.open(empty_prefix(request.param), journal=None)
        resources.push_async_callback(storage.close)
        source = await store(storage, "recordings/ä b.mp4", SOURCE)
        yield Place(storage, source, COPIES.get(request.param, Copying.IMPOSSIBLE))


async def store(storage: Storage, key: str, content: bytes) -> StoredObject:
    async with storage.writer(key, WriteOptions()) as writer:
        await writer.write(content)
    return writer.stored


def expected(*steps: bytes | tuple[int, int]) -> bytes:
    return b"".join(step if isinstance(step, bytes) else SOURCE[step[0] : step[1]] for step in steps)


@pytest.mark.parametrize(
    ("steps", "most"),
    [
        pytest.param([(0, len(SOURCE))], len(SOURCE), id="all of it"),
        pytest.param([HEAD, (3, 4)], 0, id="one byte"),
        pytest.param([HEAD, (5, 5), (1000, 6 * MIB)], 0, id="too short to be copied"),
        pytest.param([HEAD, (1000, 17 * MIB)], 12 * MIB - 1000 + len(HEAD), id="behind a head"),
        pytest.param([bytes(6 * MIB), (1, 12 * MIB)], 12 * MIB - 1, id="behind enough for a part"),
        pytest.param([bytes(9 * MIB), (1, 12 * MIB)], 8 * MIB - 1, id="behind a part that is sent"),
        pytest.param([(0, 6 * MIB), (9 * MIB, 16 * MIB)], 13 * MIB, id="two of them"),
        pytest.param([(0, 6 * MIB), b"between", (7 * MIB, 17 * MIB)], 11 * MIB + 7, id="around bytes"),
        pytest.param([(0, 6 * MIB), b"and an end"], 6 * MIB, id="before an end"),
    ],
)
async def test_ranges_are_appended_as_they_are_in_their_source(
    place: Place, steps: list[bytes | tuple[int, int]], most: int
) -> None:
    wanted = expected(*steps)
    stored, copied_bytes = await place.write(*steps)

    assert await place.holds("clip") == wanted
    assert (stored.size_bytes, stored.etag) == (len(wanted), (await place.storage.head("clip")).etag)
    assert stored.sha256 in {None, sha256(wanted).hexdigest()}
    assert stored.crc32 in {None, f"{zlib.crc32(wanted):08x}"}
    assert await place.storage.unfinished() == []
    # Where checksums stand in the way, it is too late to go without them once a part is sent.
    too_late = place.copying is Copying.UNCHECKED and wanted.startswith(bytes(9 * MIB))
    assert copied_bytes == (0 if too_late or place.copying is Copying.IMPOSSIBLE else most)
    assert (stored.sha256 is None) == (copied_bytes > 0)


async def test_a_digest_is_told_by_every_store_that_knows_one(place: Place) -> None:
    steps = (HEAD, (1000, 17 * MIB))
    stored, _ = await place.write(*steps)
    head = await place.storage.head("clip")

    wanted = expected(*steps)
    told = {stored.sha256: sha256(wanted).hexdigest(), stored.crc32: f"{zlib.crc32(wanted):08x}"}
    assert {told[found] for found in told if found} == {found for found in told if found}
    if place.copying is Copying.UNCHECKED:
        assert (stored.sha256, stored.crc32, head.crc32) == (None, None, None)
    elif place.copying is Copying.CHECKED:
        assert head.crc32 == stored.crc32 == f"{zlib.crc32(wanted):08x}"


async def test_a_source_that_was_replaced_is_not_copied(place: Place) -> None:
    await store(place.storage, place.source.key, bytes(len(SOURCE)))

    with pytest.raises(Conflict, match="ä b"):
        await place.write(HEAD, (0, 16 * MIB))
    with pytest.raises(NotFound):
        await place.storage.head("clip")
    assert await place.storage.unfinished() == []


async def test_a_source_that_is_replaced_between_two_ranges_makes_no_mixture(place: Place) -> None:
    async def write() -> None:
        async with place.storage.writer("clip", WriteOptions()) as writer:
            await writer.copy(place.source, 0, 6 * MIB)
            await store(place.storage, place.source.key, bytes(len(SOURCE)))
            await writer.copy(place.source, 6 * MIB, 12 * MIB)

    with pytest.raises(Conflict):
        await write()
    with pytest.raises(NotFound):
        await place.storage.head("clip")


async def test_a_copy_that_is_cancelled_anywhere_leaves_nothing_or_all(place: Place) -> None:
    steps = (HEAD, (1000, 12 * MIB))
    # Each time a turn of the loop later: whatever the writer was waiting for, it is interrupted there.
    for turns in (1, 8, 32, 64, 128, 256, 512):
        task = asyncio.create_task(place.write(*steps))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

        assert await place.storage.unfinished() == []
        if [stored.key async for stored in place.storage.walk("clip")]:
            assert await place.holds("clip") == expected(*steps)
    await place.write(*steps)
    assert await place.holds("clip") == expected(*steps)


async def test_a_source_that_is_gone_or_too_short_is_told(place: Place) -> None:
    with pytest.raises(Corrupt, match=str(len(SOURCE))):
        await place.write((0, len(SOURCE) + 1))

    await place.storage.delete(place.source.key)
    with pytest.raises(NotFound, match="ä b"):
        await place.write((0, 16 * MIB))


@pytest.mark.parametrize(
    "size_bytes",
    [
        pytest.param(0, id="nothing"),
        pytest.param(1000, id="little"),
        pytest.param(COPIED_BYTES, id="exactly what is held back"),
        pytest.param(COPIED_BYTES + 1, id="a byte more"),
        pytest.param(13 * MIB, id="two parts"),
        pytest.param(17 * MIB + 5, id="three parts"),
    ],
)
async def test_a_head_that_comes_last_is_first(place: Place, size_bytes: int) -> None:
    body, options = SOURCE[:size_bytes], WriteOptions(head_last=True)
    async with place.storage.writer("clip", options) as writer:
        for start in range(0, size_bytes, MIB):
            await writer.write(memoryview(body)[start : start + MIB])
        await writer.prepend(HEAD)

    stored = writer.stored
    assert await place.holds("clip") == HEAD + body
    assert stored.size_bytes == len(HEAD) + size_bytes
    assert stored.sha256 in {sha256(HEAD + body).hexdigest(), None}
    assert stored.crc32 in {f"{zlib.crc32(HEAD + body):08x}", None}
    assert stored.sha256 or stored.crc32
    assert await place.storage.unfinished() == []


async def test_what_is_copied_has_its_head_last_as_well(place: Place) -> None:
    async with place.storage.writer("clip", WriteOptions(head_last=True)) as writer:
        await writer.write(b"small")
        copied_bytes = await writer.copy(place.source, 0, 16 * MIB)
        await writer.prepend(HEAD)

    assert await place.holds("clip") == HEAD + b"small" + SOURCE[: 16 * MIB]
    if place.copying is not Copying.IMPOSSIBLE:
        assert copied_bytes == 11 * MIB + len(b"small")


async def test_a_source_and_a_result_in_one_store_are_copied_inside_it(place: Place) -> None:
    places = TwoPlaces("in.mp4", Slot(place.storage, place.source.key), Slot(place.storage, "clip"))
    source = await places.head("in.mp4")

    async with places.writer(RESULT, WriteOptions()) as writer:
        await writer.write(HEAD)
        copied_bytes = await writer.copy(source, 0, 16 * MIB)

    assert await place.holds("clip") == HEAD + SOURCE[: 16 * MIB]
    assert copied_bytes == (0 if place.copying is Copying.IMPOSSIBLE else 11 * MIB + len(HEAD))


async def test_a_source_and_a_result_in_two_stores_are_read_and_written(place: Place, tmp_path: Path) -> None:
    output = OneFile(tmp_path / "out.mp4")
    places = TwoPlaces("in.mp4", Slot(place.storage, place.source.key), Slot(output, "out"))
    source = await places.head("in.mp4")

    async with places.writer(RESULT, WriteOptions(head_last=True)) as writer:
        assert await writer.copy(source, 0, 16 * MIB) == 0
        await writer.prepend(HEAD)

    assert output.path.read_bytes() == HEAD + SOURCE[: 16 * MIB]
    assert writer.stored.sha256 == sha256(HEAD + SOURCE[: 16 * MIB]).hexdigest()


async def test_a_head_that_was_promised_has_to_come_once(place: Place) -> None:
    async def write(options: WriteOptions, heads: int) -> None:
        async with place.storage.writer("clip", options) as writer:
            await writer.write(b"body")
            for _ in range(heads):
                await writer.prepend(HEAD)

    for options, heads in ((WriteOptions(head_last=True), 0), (WriteOptions(head_last=True), 2)):
        with pytest.raises(Bug):
            await write(options, heads)
    with pytest.raises(Bug):
        await write(WriteOptions(), 1)
    with pytest.raises(NotFound):
        await place.storage.head("clip")


async def test_memory_does_not_grow_with_what_waits_for_its_head(place: Place) -> None:
    block = Random(2).randbytes(MIB)
    tracemalloc.start()
    try:
        async with place.storage.writer("clip", WriteOptions(head_last=True)) as writer:
            for _ in range(96):
                await writer.write(block)
            await writer.prepend(HEAD)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert writer.stored.size_bytes == 96 * MIB + len(HEAD)
    assert peak_bytes < 56 * MIB
