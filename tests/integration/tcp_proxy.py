"""A proxy between a client and a real server that can delay, cut, hold, forget and refuse connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024


class TcpProxy:
    """Forwards to one server. Make it with `open_proxy`. `latency_s` is added on each way."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: set[asyncio.StreamWriter] = set()
        self._flowing = _open_gate()  # of the connections from now on
        self._forgotten: list[asyncio.Event] = []  # closed gates of the connections before
        self.latency_s = 0.0
        self.port = 0

    async def accept(self) -> None:
        """Take connections, always at the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no more connections, and cut those that are open."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()

    def cut(self) -> None:
        """Drop every connection without a goodbye."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        for gate in (self._flowing, *self._forgotten):
            gate.set()
        self._forgotten.clear()

    def hold(self) -> None:
        """Forward nothing until the next `cut` or `release`: both sides believe the other is there."""
        self._flowing.clear()

    def release(self) -> None:
        """Forward what was held, late."""
        self._flowing.set()

    def forget(self) -> None:
        """Leave every connection half-open until the next `cut`: gone for the server, the client is not told.

        Connections that are made from now on work.
        """
        self.hold()
        self._forgotten.append(self._flowing)
        self._flowing = _open_gate()
        for writer in tuple(self._servers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate = self._flowing
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, there_writer}
        self._servers.add(there_writer)
        try:
            await asyncio.gather(
                self._pump(reader, there_writer, gate), self._pump(there_reader, writer, gate)
            )
        finally:
            self._writers -= {writer, there_writer}
            self._servers.discard(there_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await gate.wait()
                await asyncio.sleep(self.latency_s)
                writer.write(data)
                await writer.drain()
        await gate.wait()  # an end is held back too
        writer.transport.abort()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@asynccontextmanager
async def open_proxy(host: str, port: int) -> AsyncIterator[TcpProxy]:
    """Open a proxy to a server, and close it at the end."""
    proxy = TcpProxy(host, port)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.refuse()


@asynccontextmanager
async def open_proxy_to(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """Open a proxy to a URL's server. Yields it, and the URL that leads through it."""
    address = urlsplit(url)
    credentials, at, _ = address.netloc.rpartition("@")
    async with open_proxy(address.hostname or "", address.port or 0) as proxy:
        yield proxy, address._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}").geturl()
