"""The loopback serves exactly the given objects, and a store that fails is never mistaken for a short one."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shared.kernel.errors import Unavailable
from shared.media.loopback import Loopback
from shared.storage.local import FileStorage
from tests.media.studio import FixedClock, Studio

BODY = bytes(range(256)) * 8192  # 2 MiB: more than one window
LENGTH = len(BODY)


class FailingStorage(FileStorage):
    """A store that answers up to a byte and then not any more."""

    fails_at = LENGTH // 2

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        if end is None or end > self.fails_at:
            raise Unavailable("the store is away")
        async with super().read(key, start=start, end=end, if_match=if_match) as chunks:
            yield chunks


async def ask(url: str, *fields: str, method: str = "GET") -> tuple[str, dict[str, str], bytes]:
    """Send one request, and return status, header fields and whatever came of the body."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write("\r\n".join((f"{method} {place.path} HTTP/1.1", "Host: x", *fields, "", "")).encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


@pytest.fixture
async def shared(studio: Studio) -> AsyncIterator[tuple[Loopback, str]]:
    studio.path("a.mp4").write_bytes(BODY)
    async with Loopback(studio.storage) as loopback:
        yield loopback, loopback.share(await studio.storage.head("a.mp4"))


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [
        pytest.param("Range: bytes=0-", 0, LENGTH, id="all"),
        pytest.param("Range: bytes=1000000-", 1_000_000, LENGTH, id="from a byte on"),
        pytest.param("Range: bytes=5-9", 5, 10, id="a few"),
        pytest.param("range: bytes=2097151-99999999", LENGTH - 1, LENGTH, id="beyond the end"),
        pytest.param("Accept: */*", 0, LENGTH, id="no range"),
    ],
)
async def test_ranges_are_served(shared: tuple[Loopback, str], field: str, start: int, end: int) -> None:
    status, fields, body = await ask(shared[1], field)

    assert status == "HTTP/1.1 206 Partial Content"
    assert fields["Content-Range"] == f"bytes {start}-{end - 1}/{LENGTH}"
    assert fields["Content-Length"] == str(end - start)
    assert body == BODY[start:end]


@pytest.mark.parametrize(
    ("path", "field", "method", "status"),
    [
        pytest.param("/", "", "GET", "404", id="no such path"),
        pytest.param("/a.mp4", "", "GET", "404", id="the key is no path"),
        pytest.param("", "Range: bytes=2097152-", "GET", "416", id="after the end"),
        pytest.param("", "Range: bytes=9-5", "GET", "416", id="backwards"),
        pytest.param("", "Range: bytes=-5", "GET", "400", id="another range"),
        pytest.param("", "", "PUT", "405", id="another method"),
        pytest.param("", "X: " + "x" * 10_000, "GET", "431", id="endless request"),
    ],
)
async def test_nothing_else_is(
    shared: tuple[Loopback, str], path: str, field: str, method: str, status: str
) -> None:
    url = shared[1]
    place = urlsplit(url)
    asked = f"{place.scheme}://{place.netloc}{path}" if path else url
    answer, _, body = await ask(asked, field or "Accept: */*", method=method)

    assert answer.split()[1] == status
    assert body == b""


async def test_it_listens_on_this_machine_only(shared: tuple[Loopback, str]) -> None:
    assert urlsplit(shared[1]).hostname == "127.0.0.1"
    assert len(urlsplit(shared[1]).path) > 40


async def test_a_client_that_goes_away_is_no_failure(shared: tuple[Loopback, str]) -> None:
    loopback, url = shared
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(f"GET {place.path} HTTP/1.1\r\n\r\n".encode())
    await reader.readexactly(1000)
    writer.transport.abort()
    status, _, _ = await ask(url, "Range: bytes=0-9")

    loopback.raise_failure()
    assert "206" in status


async def test_a_store_that_fails_cuts_the_connection_and_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(BODY)
    storage = FailingStorage(tmp_path, public_url="http://x", signing_key=b"k" * 32, clock=FixedClock())
    async with Loopback(storage) as loopback:
        url = loopback.share(await storage.head("a.mp4"))
        with pytest.raises(ConnectionError):
            await ask(url, "Range: bytes=0-")

        with pytest.raises(Unavailable, match="the store is away"):
            loopback.raise_failure()
    await storage.close()


async def test_an_object_that_changed_meanwhile_is_not_mixed(studio: Studio) -> None:
    studio.path("a.mp4").write_bytes(BODY)
    async with Loopback(studio.storage) as loopback:
        url = loopback.share(await studio.storage.head("a.mp4"))
        studio.path("a.mp4").write_bytes(BODY[::-1] + b"more")
        with pytest.raises(ConnectionError):
            await ask(url, "Range: bytes=0-")


async def test_it_closes_with_its_connections(studio: Studio) -> None:
    studio.path("a.mp4").write_bytes(BODY)
    async with Loopback(studio.storage) as loopback:
        place = urlsplit(loopback.share(await studio.storage.head("a.mp4")))
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(b"GET /")  # and no more of it
        await writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.open_connection(place.hostname, place.port)
    with pytest.raises(ConnectionError):
        await reader.readexactly(1)
    writer.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_at_once_and_closes_who_has_just_connected(studio: Studio, turns: int) -> None:
    """The ffmpeg is killed at any moment, and its connection may be at any step of being accepted."""
    studio.path("a.mp4").write_bytes(BODY)
    async with asyncio.timeout(5):
        async with Loopback(studio.storage) as loopback:
            place = urlsplit(loopback.share(await studio.storage.head("a.mp4")))
            assert place.hostname is not None
            callers = [socket.create_connection((place.hostname, place.port or 0)) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)

    gc.collect()  # what was forgotten would warn here
    for caller in callers:
        with caller, suppress(ConnectionResetError):
            assert caller.recv(1) == b""
