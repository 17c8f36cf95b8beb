"""A gate between a store and its real S3 server: what a test's own gate does not change passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from shared.storage.s3 import S3Storage
from shared.storage.s3_limits import S3Limits

CHUNK_BYTES = 1 << 16


@dataclass(slots=True, eq=False)
class Line:
    """One connection of the client, with the one to the server behind it."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    is_lost: bool = False  # to the client, from the next answer on


@dataclass
class S3Gate:
    """Passes bytes. Raise EOFError in `pass_requests` or `pass_answers` to end a line."""

    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def pass_requests(self, line: Line) -> None:
        while chunk := await line.client.read(CHUNK_BYTES):
            line.to_server.write(chunk)
            await line.to_server.drain()
        raise EOFError

    async def pass_answers(self, line: Line) -> None:
        while chunk := await line.server.read(CHUNK_BYTES):
            line.to_client.write(chunk)
            await line.to_client.drain()
        raise EOFError

    @asynccontextmanager
    async def stand_before(self, endpoint: str) -> AsyncIterator[str]:
        """Yield the endpoint that leads through the gate."""
        target = urlsplit(endpoint)

        async def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            self._tasks.add(task)
            server, to_server = await asyncio.open_connection(target.hostname, target.port or 80)
            await self._serve(Line(client, to_client, server, to_server))
            self._tasks.discard(task)

        door = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 20)
        host, port = door.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            door.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, line: Line) -> None:
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.pass_requests(line))
                both.create_task(self.pass_answers(line))
        except* (ConnectionError, EOFError):
            pass
        finally:
            line.to_client.close()
            line.to_server.close()


@dataclass
class Doorman(S3Gate):
    """Answers requests in the server's place, and changes answers: heads come at the start of a chunk."""

    answer: Callable[[bytes], bytes | None] = lambda _: None
    change: Callable[[bytes], bytes] = lambda chunk: chunk

    async def pass_requests(self, line: Line) -> None:
        while chunk := await line.client.read(CHUNK_BYTES):
            if (own := self.answer(chunk)) is not None:
                line.to_client.write(own)
            else:
                line.to_server.write(chunk)
                await line.to_server.drain()
        raise EOFError

    async def pass_answers(self, line: Line) -> None:
        while chunk := await line.server.read(CHUNK_BYTES):
            line.to_client.write(self.change(chunk))
            await line.to_client.drain()
        raise EOFError


@dataclass
class Proxy(S3Gate):
    """Breaks off or loses answers, on command."""

    cut_after: list[int] = field(default_factory=list)  # for the next answers: how many bytes get through
    lose_answer_to: list[bytes] = field(default_factory=list)  # beginnings of requests, each used up once
    before_cut: Callable[[], Awaitable[object]] | None = None
    cuts: int = 0

    async def pass_requests(self, line: Line) -> None:
        while chunk := await line.client.read(CHUNK_BYTES):
            for beginning in list(self.lose_answer_to):
                if chunk.startswith(beginning):
                    self.lose_answer_to.remove(beginning)
                    line.is_lost = True
            line.to_server.write(chunk)
            await line.to_server.drain()
        raise EOFError

    async def pass_answers(self, line: Line) -> None:
        while chunk := await line.server.read(CHUNK_BYTES):
            if line.is_lost and not chunk.startswith(b"HTTP/1.1 100"):
                self.cuts += 1
                raise EOFError
            if self.cut_after and b"206 Partial" in chunk[:40]:
                await self._cut(chunk, line, self.cut_after.pop(0))
            line.to_client.write(chunk)
            await line.to_client.drain()
        raise EOFError

    async def _cut(self, chunk: bytes, line: Line, left_bytes: int) -> None:
        while chunk and left_bytes > 0:
            line.to_client.write(chunk[:left_bytes])
            await line.to_client.drain()
            left_bytes -= len(chunk)
            chunk = await line.server.read(CHUNK_BYTES)
        if self.before_cut:
            await self.before_cut()
        self.cuts += 1
        raise EOFError


@asynccontextmanager
async def opened_behind(
    gate: S3Gate, s3_url: str, limits: S3Limits
) -> AsyncIterator[tuple[S3Storage, S3Storage]]:
    """Open a store through the gate, and the same store reached directly."""
    address = urlsplit(s3_url)
    options = {name: values[0] for name, values in parse_qs(address.query).items()}
    async with gate.stand_before(options["endpoint"]) as endpoint:
        through = address._replace(query=urlencode(options | {"endpoint": endpoint})).geturl()
        storage = await S3Storage.open(through, journal=None, limits=limits)
        direct = await S3Storage.open(s3_url, journal=None)
        try:
            yield storage, direct
        finally:
            await storage.close()
            await direct.close()
