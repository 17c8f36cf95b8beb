"""What every store promises (`shared/storage/port.py`), on a directory and on real S3 servers."""

from __future__ import annotations

import asyncio
import shutil
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from shared.database.opening import open_database
from shared.kernel.errors import Bug, Conflict, Corrupt, NotFound, Refused, Unavailable
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage, StoredObject, UnfinishedUpload, UploadedPart, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_limits import S3Limits
from shared.storage.signature import verify_signature
from spool.migrations import migrate
from tests.s3_servers import MINIO, SEAWEEDFS, VARIABLES, empty_prefix

MIB = 1 << 20
SIGNING_KEY = b"a key that only the server knows"
SMALL = b"0123456789"
# More than one part of a multipart upload, and not a multiple of one.
LARGE = Random(1).randbytes(17 * MIB + 5)
FLAT = {SEAWEEDFS, MINIO}  # stores where a key may be the beginning of another, up to a slash
CONTENTS = [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="in parts")]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with all tables, to be copied: the migrations take longer than most tests here."""
    path = tmp_path_factory.mktemp("storage") / "spool.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=["file", *VARIABLES])
async def storage(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> AsyncIterator[Storage]:
    clock = SystemClock()
    async with AsyncExitStack() as resources:
        opened: Storage
        if request.param == "file":
            opened = await FileStorage.open(
                tmp_path / "media", public_url="http://spool.test", signing_key=SIGNING_KEY, clock=clock
            )
        else:
            url = empty_prefix(request.param)
            path = Path(shutil.copy(migrated, tmp_path))
            database = await open_database(f"sqlite:///{path}", clock=clock)
            resources.push_async_callback(database.close)
            limits = S3Limits(page_keys=7, piece_bytes=MIB)  # whatever is longer than two is read in pieces
            opened = await S3Storage.open(url, journal=UploadJournal(database, url), limits=limits)
        resources.push_async_callback(opened.close)
        yield opened


async def store(
    storage: Storage, key: str, content: bytes, options: WriteOptions | None = None
) -> StoredObject:
    async with storage.writer(key, options or WriteOptions()) as writer:
        for start in range(0, len(content), MIB):
            await writer.write(memoryview(content)[start : start + MIB])
    return writer.stored


async def fetch(
    storage: Storage, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
) -> bytes:
    async with storage.read(key, start=start, end=end, if_match=if_match) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def keys(storage: Storage, prefix: str = "", after: str = "") -> list[str]:
    return [stored.key async for stored in storage.walk(prefix, after=after)]


async def assert_nothing_at(storage: Storage, key: str) -> None:
    with pytest.raises(NotFound):
        await storage.head(key)
    assert await storage.unfinished() == []
    assert await keys(storage) == []


@pytest.mark.parametrize("content", [pytest.param(b"", id="empty"), *CONTENTS])
async def test_what_was_written_is_described_and_read_back(storage: Storage, content: bytes) -> None:
    written = await store(storage, "clips/a.mp4", content, WriteOptions(content_type="video/mp4"))

    found = await storage.head("clips/a.mp4")

    assert written.sha256 == sha256(content).hexdigest()
    assert found.sha256 in {written.sha256, None}
    assert (found.size_bytes, found.content_type) == (len(content), "video/mp4")
    assert (found.etag, found.modified_ms) == (written.etag, written.modified_ms)
    assert abs(found.modified_ms - SystemClock().now_ms()) < 600_000
    assert await fetch(storage, "clips/a.mp4") == content
    assert await storage.unfinished() == []


async def test_the_digest_of_a_small_object_is_kept(storage: Storage) -> None:
    await store(storage, "a", SMALL, WriteOptions(metadata={"camera": "c1"}))

    assert (await storage.head("a")).sha256 == sha256(SMALL).hexdigest()


async def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound):
        await storage.head("nothing")
    with pytest.raises(NotFound):
        await fetch(storage, "nothing/below")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(0, 1, id="first byte"),
        pytest.param(9, 10, id="last byte"),
        pytest.param(3, 7, id="middle"),
        pytest.param(4, None, id="from the middle on"),
        pytest.param(0, 10, id="exactly all"),
        pytest.param(5, 5, id="nothing"),
        pytest.param(10, 10, id="nothing, at the end"),
        pytest.param(10, None, id="from the end on"),
    ],
)
async def test_a_range_is_half_open(storage: Storage, start: int, end: int | None) -> None:
    await store(storage, "a", SMALL)

    assert await fetch(storage, "a", start=start, end=end) == SMALL[start:end]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(0, 11, id="ends beyond"),
        pytest.param(10, 11, id="starts at the end"),
        pytest.param(11, None, id="starts beyond, open"),
        pytest.param(11, 12, id="starts beyond"),
        pytest.param(11, 11, id="nothing, beyond"),
    ],
)
async def test_an_object_that_ends_too_soon_is_corrupt(storage: Storage, start: int, end: int | None) -> None:
    await store(storage, "a", SMALL)

    with pytest.raises(Corrupt, match="10"):
        await fetch(storage, "a", start=start, end=end)


async def test_a_range_that_is_none_is_refused(storage: Storage) -> None:
    with pytest.raises(Refused):
        await fetch(storage, "a", start=-1)
    with pytest.raises(Refused):
        await fetch(storage, "a", start=2, end=1)


async def test_chunks_are_bounded_and_bytes_are_counted(storage: Storage) -> None:
    await store(storage, "a", LARGE)

    async with storage.read("a", start=1, end=3 * MIB) as chunks:
        sizes = [len(chunk) async for chunk in chunks]

    assert max(sizes) <= MIB
    assert storage.bytes_read == sum(sizes) == 3 * MIB - 1


async def test_memory_does_not_grow_with_the_object(storage: Storage) -> None:
    block = Random(2).randbytes(MIB)
    tracemalloc.start()
    try:
        async with storage.writer("a", WriteOptions()) as writer:
            for _ in range(96):
                await writer.write(block)
        async with storage.read("a") as chunks:
            received = sum([len(chunk) async for chunk in chunks])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert received == 96 * MIB
    assert peak_bytes < 48 * MIB


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_object_appears_only_when_it_is_whole(storage: Storage, content: bytes) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        with pytest.raises(NotFound):
            await storage.head("a")
        seen.append(await keys(storage))

    async with storage.writer("a", WriteOptions(before_completion=look)) as writer:
        await writer.write(content)
        await look()
        with pytest.raises(Bug):
            _ = writer.stored

    assert seen == [[], []]
    assert await keys(storage) == ["a"]


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_error_inside_leaves_nothing(storage: Storage, content: bytes) -> None:
    async def fail() -> None:
        async with storage.writer("a/b", WriteOptions()) as writer:
            await writer.write(content)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    await assert_nothing_at(storage, "a/b")


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_error_before_completion_leaves_nothing(storage: Storage, content: bytes) -> None:
    async def refuse() -> None:
        raise Conflict("the claim was lost")

    with pytest.raises(Conflict, match="claim"):
        await store(storage, "a/b", content, WriteOptions(before_completion=refuse))

    await assert_nothing_at(storage, "a/b")


@pytest.mark.parametrize("content", CONTENTS)
async def test_a_cancelled_write_leaves_nothing(storage: Storage, content: bytes) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with storage.writer("a/b", WriteOptions()) as writer:
            await writer.write(content)
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await assert_nothing_at(storage, "a/b")


@pytest.mark.parametrize("content", CONTENTS)
async def test_a_write_that_is_cancelled_anywhere_leaves_nothing_or_all(
    storage: Storage, content: bytes
) -> None:
    task = asyncio.create_task(store(storage, "a/b", content))
    # One turn of the loop more each time: whatever the writer was waiting for, it is interrupted there.
    for turns in (1, 2, 4, 8, 16, 32, 64, 128):
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

        assert await storage.unfinished() == []
        if await keys(storage):
            assert await fetch(storage, "a/b") == content
        task = asyncio.create_task(store(storage, "a/b", content))
    assert (await task).size_bytes == len(content)


@pytest.mark.parametrize("content", CONTENTS)
async def test_if_absent_keeps_what_is_there(storage: Storage, content: bytes) -> None:
    first = await store(storage, "a", b"first", WriteOptions(if_absent=True))

    with pytest.raises(Conflict):
        await store(storage, "a", content, WriteOptions(if_absent=True))

    assert (await storage.head("a")).etag == first.etag
    assert await fetch(storage, "a") == b"first"
    assert await storage.unfinished() == []


async def test_of_many_that_write_at_once_if_absent_one_wins(storage: Storage) -> None:
    contents = [bytes([65 + number]) * 1000 for number in range(8)]
    writes = [store(storage, "race/a", content, WriteOptions(if_absent=True)) for content in contents]

    outcomes = await asyncio.gather(*writes, return_exceptions=True)

    winners = [content for content, outcome in zip(contents, outcomes, strict=True) if not_an_error(outcome)]
    assert winners == [await fetch(storage, "race/a")]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 7
    assert await storage.unfinished() == []


def not_an_error(outcome: object) -> bool:
    return not isinstance(outcome, BaseException)


@pytest.mark.parametrize("content", CONTENTS)
async def test_if_match_replaces_what_was_looked_at(storage: Storage, content: bytes) -> None:
    before = await store(storage, "a", b"before", WriteOptions(content_type="text/plain"))

    after = await store(storage, "a", content, WriteOptions(if_match=before.etag, content_type="video/mp4"))

    assert after.etag != before.etag
    assert (await storage.head("a")).content_type == "video/mp4"
    assert await fetch(storage, "a", if_match=after.etag) == content
    with pytest.raises(Conflict):
        await fetch(storage, "a", if_match=before.etag)


@pytest.mark.parametrize("content", CONTENTS)
async def test_if_match_keeps_what_changed_meanwhile(storage: Storage, content: bytes) -> None:
    before = await store(storage, "a", b"before")
    await store(storage, "a", b"after!")

    with pytest.raises(Conflict):
        await store(storage, "a", content, WriteOptions(if_match=before.etag))

    assert await fetch(storage, "a") == b"after!"
    assert await storage.unfinished() == []


@pytest.mark.parametrize("content", CONTENTS)
async def test_if_match_brings_back_nothing_that_is_gone(storage: Storage, content: bytes) -> None:
    before = await store(storage, "a", b"before")
    await storage.delete("a")

    with pytest.raises(Conflict):
        await store(storage, "a", content, WriteOptions(if_match=before.etag))

    await assert_nothing_at(storage, "a")


async def test_bytes_of_the_same_length_have_another_etag(storage: Storage) -> None:
    etags = [(await store(storage, "a", bytes([48 + turn]) * 10)).etag for turn in range(5)]

    assert len(set(etags)) == 5


async def test_an_object_replaced_while_it_is_read_is_never_a_mixture(storage: Storage) -> None:
    await store(storage, "a", LARGE)
    replaced = bytes(len(LARGE))

    received = b""
    conflict = False
    replacing: asyncio.Task[StoredObject] | None = None
    try:
        async with storage.read("a") as chunks:
            received += await anext(chunks)
            replacing = asyncio.create_task(store(storage, "a", replaced))
            # MinIO lets the writer wait for the reader.
            await asyncio.wait((replacing,), timeout=2)
            async for chunk in chunks:
                received += chunk
    except Conflict:
        conflict = True

    assert replacing is not None
    await replacing
    assert conflict or received == LARGE
    assert LARGE.startswith(received)


async def test_objects_are_walked_in_order_over_pages(storage: Storage) -> None:
    written = [f"walk/{number % 3}/{number:02}.mp4" for number in range(30)]
    await asyncio.gather(*(store(storage, key, SMALL) for key in [*written, "other/a", "walker"]))

    assert await keys(storage) == sorted([*written, "other/a", "walker"])
    assert await keys(storage, "walk/") == sorted(written)
    assert await keys(storage, "walk/1/0") == ["walk/1/01.mp4", "walk/1/04.mp4", "walk/1/07.mp4"]
    assert await keys(storage, "walk/", after="walk/1/07.mp4") == sorted(written)[13:]
    assert await keys(storage, "walk/", after="walk/1/05") == sorted(written)[12:]
    assert await keys(storage, "walk/9") == []
    described = [stored async for stored in storage.walk("other/")]
    assert described[0].etag == (await storage.head("other/a")).etag
    assert described[0].size_bytes == len(SMALL)


async def test_a_deleted_object_is_gone_and_deleting_again_is_fine(storage: Storage) -> None:
    await store(storage, "a/b", SMALL)

    await storage.delete("a/b")
    await storage.delete("a/b")
    await storage.delete("never/there")

    await assert_nothing_at(storage, "a/b")
    await store(storage, "a", SMALL)  # no directory is left that would stand in the way


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param("../../etc/passwd", id="climbs out"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("a//b", id="empty segment"),
        pytest.param("a/../b", id="climbs inside"),
        pytest.param("a/./b", id="dot segment"),
        pytest.param("a/", id="directory"),
        pytest.param("a\x00b", id="control character"),
        pytest.param("a\\b", id="backslash"),
        pytest.param(".spool-uploads/a", id="Spool's own"),
        pytest.param("a/.spool-meta", id="Spool's own, below"),
        pytest.param("a" * 256, id="long segment"),
        pytest.param("\ud800", id="no Unicode"),
    ],
)
async def test_a_key_that_some_store_could_not_hold_is_refused(storage: Storage, key: str) -> None:
    with pytest.raises(Refused) as refusal:
        await storage.head(key)
    assert refusal.value.field == "key"
    with pytest.raises(Refused):
        await fetch(storage, key)
    with pytest.raises(Refused):
        await store(storage, key, SMALL)
    with pytest.raises(Refused):
        await storage.delete(key)
    with pytest.raises(Refused):
        await storage.presign(key, expires_s=60)


@pytest.mark.parametrize("key", ["a b/c+d%20e&f=g.mp4", "größe/日本語/🎥.mp4", "-/~/'\"()", "a" * 255 + "/b"])
async def test_a_key_is_kept_as_it_is(storage: Storage, key: str) -> None:
    await store(storage, key, SMALL)

    assert await keys(storage) == [key]
    assert await fetch(storage, key) == SMALL


@pytest.mark.parametrize(("key", "other"), [("a", "a/b"), ("a/b", "a")], ids=["below it", "above it"])
async def test_a_key_beside_one_that_continues_it_is_kept_or_refused(
    storage: Storage, key: str, other: str, request: pytest.FixtureRequest
) -> None:
    await store(storage, key, SMALL)

    if request.node.callspec.params["storage"] in FLAT:
        await store(storage, other, SMALL[::-1])
        assert await fetch(storage, other) == SMALL[::-1]
    else:  # it keeps objects as files, and a file is no directory
        with pytest.raises((Conflict, Refused)):
            await store(storage, other, SMALL[::-1])
        assert await keys(storage) == [key]

    assert await fetch(storage, key) == SMALL


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(WriteOptions(if_absent=True, if_match="x"), id="two conditions"),
        pytest.param(WriteOptions(metadata={"Name": "x"}), id="capital in a name"),
        pytest.param(WriteOptions(metadata={"sha256": "x"}), id="Spool's own name"),
        pytest.param(WriteOptions(metadata={"name": "ü"}), id="value that no header holds"),
        pytest.param(WriteOptions(metadata={"name": "x" * 2048}), id="too much metadata"),
    ],
)
async def test_options_that_cannot_be_kept_are_refused(storage: Storage, options: WriteOptions) -> None:
    with pytest.raises(Refused):
        await store(storage, "a", SMALL, options)


async def test_a_signed_url_lends_the_object_by_range(storage: Storage) -> None:
    await store(storage, "lent/a b.mp4", SMALL)

    url = await storage.presign("lent/a b.mp4", expires_s=60)

    if isinstance(storage, FileStorage):
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        key = unquote(parts.path).removeprefix("/media/")
        now_ms = SystemClock().now_ms()
        assert (parts.scheme, parts.netloc, key) == ("http", "spool.test", "lent/a b.mp4")
        assert verify_signature(key, int(query["expires"]), query["signature"], SIGNING_KEY, now_ms)
        return
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, headers={"range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, SMALL[2:5])


@pytest.mark.parametrize("expires_s", [0, -1, 7 * 24 * 3600 + 1])
async def test_a_url_is_not_signed_for_longer_than_a_week(storage: Storage, expires_s: int) -> None:
    with pytest.raises(Refused):
        await storage.presign("a", expires_s=expires_s)


async def test_an_unfinished_upload_is_listed_and_can_be_aborted(storage: Storage) -> None:
    async def write_and_abort() -> None:
        async with storage.writer("up/a", WriteOptions(owner=(1, 2))) as writer:
            await writer.write(LARGE)
            [upload] = await storage.unfinished("up/")
            assert upload.key == "up/a"
            assert abs(upload.started_ms - SystemClock().now_ms()) < 600_000
            assert await storage.unfinished("down/") == []

            await storage.abort(upload)
            await storage.abort(upload)
            assert await storage.unfinished() == []

    with pytest.raises(Unavailable):
        await write_and_abort()

    await assert_nothing_at(storage, "up/a")


async def test_a_store_that_is_there_passes_its_check(storage: Storage) -> None:
    await storage.check()


async def capture_until_an_error(storage: Storage, content: bytes) -> None:
    options = WriteOptions("video/mp4", metadata={"camera": "c1"}, is_capture=True)
    async with storage.writer("captures/a", options) as writer:
        await writer.write(content)
        await asyncio.sleep(1)  # what is on its way arrives
        raise ZeroDivisionError


async def left_by_a_failed_capture(storage: Storage, content: bytes) -> UnfinishedUpload:
    """Capture until an error, and return what is there for the sweeper."""
    with pytest.raises(ZeroDivisionError):
        await capture_until_an_error(storage, content)
    [left] = await storage.unfinished("captures/")
    return left


async def journalled(storage: Storage) -> list[UploadedPart]:
    """Return what the journal knows of the one upload; a directory keeps that itself."""
    if not isinstance(storage, S3Storage):
        return []
    assert storage._journal is not None
    [row] = await storage._journal.rows()
    return await storage._journal.parts(row.row_id)


async def test_a_capture_that_failed_is_completed_and_marked(storage: Storage) -> None:
    left = await left_by_a_failed_capture(storage, LARGE)

    completed = await storage.complete(left, await journalled(storage))
    marked = await storage.mark_recovered("captures/a")

    assert completed is not None
    found = await storage.head("captures/a")
    assert (found.is_recovered, found.content_type, found.etag) == (True, "video/mp4", marked.etag)
    assert found.size_bytes == completed.size_bytes > 0
    assert LARGE.startswith(await fetch(storage, "captures/a"))
    assert await storage.mark_recovered("captures/a") == found
    with pytest.raises(NotFound):
        await storage.complete(left, [])


async def test_a_capture_is_not_completed_over_another_object(storage: Storage) -> None:
    left = await left_by_a_failed_capture(storage, LARGE)
    await store(storage, "captures/a", SMALL)

    with pytest.raises(Conflict):
        await storage.complete(left, await journalled(storage))

    assert await fetch(storage, "captures/a") == SMALL
    assert [upload.key for upload in await storage.unfinished()] == ["captures/a"]
    await storage.abort(left)


async def test_what_was_written_whole_is_not_recovered(storage: Storage) -> None:
    await store(storage, "captures/a", LARGE, WriteOptions(is_capture=True))

    assert not (await storage.head("captures/a")).is_recovered
    assert await storage.unfinished() == []


async def test_a_capture_has_its_head_first(storage: Storage) -> None:
    with pytest.raises(Refused):
        await store(storage, "captures/a", SMALL, WriteOptions(is_capture=True, head_last=True))
