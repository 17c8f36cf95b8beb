"""The way to S3 breaks in the middle: answers are cut or lost. A real server behind a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

import pytest

from shared.kernel.errors import Conflict, NotFound, Unavailable
from shared.storage.port import WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_errors import NotLetIn
from shared.storage.s3_limits import S3Limits
from tests.integration.s3_gate import Proxy, opened_behind

MIB = 1 << 20
LARGE = Random(3).randbytes(20 * MIB + 7)
# One reader: how several share a range is in test_s3_read_ahead.py.
QUICK = S3Limits(connect_s=2, read_s=5, attempts=3, wait_s=0.01, wait_max_s=0.05, readers=1)


@dataclass
class Way:
    """A store behind a proxy, and the same store reached directly."""

    proxy: Proxy
    storage: S3Storage
    direct: S3Storage


@pytest.fixture
async def way(s3_url: str) -> AsyncIterator[Way]:
    proxy = Proxy()
    async with opened_behind(proxy, s3_url, QUICK) as (storage, direct):
        yield Way(proxy, storage, direct)


async def store(storage: S3Storage, key: str, content: bytes, options: WriteOptions | None = None) -> str:
    async with storage.writer(key, options or WriteOptions()) as writer:
        await writer.write(content)
    return writer.stored.etag


async def fetch(storage: S3Storage, key: str, *, start: int, end: int | None) -> bytes:
    async with storage.read(key, start=start, end=end) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize(
    ("start", "end"), [pytest.param(1, None, id="to the end"), pytest.param(5, 18 * MIB, id="a range")]
)
async def test_a_download_that_breaks_off_goes_on_where_it_broke(
    way: Way, start: int, end: int | None
) -> None:
    await store(way.direct, "a", LARGE)
    way.proxy.cut_after = [3 * MIB, 5 * MIB, 100, 2 * MIB, 4 * MIB]

    assert await fetch(way.storage, "a", start=start, end=end) == LARGE[start:end]
    assert way.proxy.cuts == 5


async def test_a_download_that_breaks_off_without_progress_is_given_up(way: Way) -> None:
    await store(way.direct, "a", LARGE)
    way.proxy.cut_after = [2000] * 10

    with pytest.raises(Unavailable, match="again and again"):
        await fetch(way.storage, "a", start=1, end=None)
    assert way.proxy.cuts == QUICK.attempts


async def test_an_object_that_is_replaced_while_the_download_is_broken_is_a_conflict(way: Way) -> None:
    await store(way.direct, "a", LARGE)
    way.proxy.cut_after = [5 * MIB]
    way.proxy.before_cut = lambda: store(way.direct, "a", bytes(len(LARGE)))

    with pytest.raises(Conflict):
        await fetch(way.storage, "a", start=1, end=None)


async def test_an_object_that_is_deleted_while_the_download_is_broken_is_not_found(way: Way) -> None:
    await store(way.direct, "a", LARGE)
    way.proxy.cut_after = [5 * MIB]
    way.proxy.before_cut = lambda: way.direct.delete("a")

    with pytest.raises(NotFound):
        await fetch(way.storage, "a", start=1, end=None)


@pytest.mark.parametrize("if_absent", [True, False])
@pytest.mark.parametrize(
    ("content", "request_line"),
    [
        pytest.param(b"small", b"PUT ", id="small object"),
        pytest.param(LARGE, b"PUT ", id="part"),
        pytest.param(LARGE, b"POST ", id="create"),
    ],
)
async def test_a_lost_answer_leaves_one_object_or_an_error_and_nothing(
    way: Way, content: bytes, request_line: bytes, if_absent: bool
) -> None:
    way.proxy.lose_answer_to = [request_line]
    options = WriteOptions(if_absent=if_absent)

    if request_line == b"POST ":
        # Whether there is an upload is not known now, so it is not created a second time.
        with pytest.raises(Unavailable):
            await store(way.storage, "a", content, options)
        with pytest.raises(NotFound):
            await way.direct.head("a")
    else:
        etag = await store(way.storage, "a", content, options)
        assert (await way.direct.head("a")).etag == etag
        assert await way.direct.unfinished() == []
    assert way.proxy.cuts == 1


@pytest.mark.parametrize("if_absent", [True, False])
async def test_a_completion_whose_answer_is_lost_is_recognised(way: Way, if_absent: bool) -> None:
    async def lose_the_next_answer() -> None:
        way.proxy.lose_answer_to = [b"POST "]

    options = WriteOptions(if_absent=if_absent, before_completion=lose_the_next_answer)
    etag = await store(way.storage, "a", LARGE, options)

    assert way.proxy.cuts == 1
    assert (await way.direct.head("a")).etag == etag
    assert await fetch(way.direct, "a", start=0, end=None) == LARGE
    assert await way.direct.unfinished() == []


async def test_a_put_whose_answer_is_lost_does_not_hide_who_was_there_first(way: Way) -> None:
    await store(way.direct, "a", b"first")
    way.proxy.lose_answer_to = [b"PUT "]

    with pytest.raises(Conflict):
        await store(way.storage, "a", b"second", WriteOptions(if_absent=True))
    assert await fetch(way.direct, "a", start=0, end=None) == b"first"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[S3Storage]:
    storage = await S3Storage.open(url, journal=None, limits=QUICK)
    try:
        yield storage
    finally:
        await storage.close()


async def test_a_server_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    nobody = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = nobody.sockets[0].getsockname()[1]
    nobody.close()
    await nobody.wait_closed()

    async with opened(f"s3://bucket/prefix?endpoint=http://127.0.0.1:{port}") as storage:
        with pytest.raises(Unavailable):
            await storage.check()
        with pytest.raises(Unavailable):
            await store(storage, "a", b"small")
        with pytest.raises(Unavailable):
            await fetch(storage, "a", start=0, end=None)


async def test_a_wrong_secret_is_unavailable_with_a_hint_and_never_told(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")

    async with opened(s3_url) as storage:
        with pytest.raises(NotLetIn) as refusal:
            await store(storage, "a", b"small")
        with pytest.raises(NotLetIn):
            await storage.check()

    assert refusal.value.hint
    assert "not-the-secret" not in str(refusal.value)


async def test_a_bucket_that_is_not_there_is_unavailable(s3_url: str) -> None:
    url = urlsplit(s3_url)._replace(netloc="no-such-bucket-anywhere").geturl()

    async with opened(url) as storage:
        with pytest.raises(Unavailable, match="bucket"):
            await storage.check()
        with pytest.raises(Unavailable):
            await fetch(storage, "a", start=0, end=None)


@pytest.mark.parametrize("shape", ["an answer", "a body"])
async def test_a_server_that_sends_drop_by_drop_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    head = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 99999\r\n'

    answering: list[asyncio.Task[None] | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.current_task())
        await reader.read(65536)  # the request, or nothing when the client gave up before
        writer.write(head if shape == "an answer" else head + b"\r\n")
        while not (reader.at_eof() or writer.is_closing()):  # until the client has hung up
            writer.write(b"x-drop: 1\r\n" if shape == "an answer" else b"d")
            await asyncio.sleep(0.02)
        writer.close()

    limits = S3Limits(connect_s=2, read_s=5, request_s=0.2, body_s=0.2, attempts=2, wait_s=0.01)
    async with AsyncExitStack() as resources:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        resources.callback(server.close)
        host, port = server.sockets[0].getsockname()
        storage = await S3Storage.open(f"s3://any?endpoint=http://{host}:{port}", journal=None, limits=limits)
        resources.push_async_callback(storage.close)

        with pytest.raises(Unavailable, match=r"does not answer|comes too slowly"):
            await fetch(storage, "clip.mp4", start=0, end=None)
        await asyncio.gather(*filter(None, answering))
