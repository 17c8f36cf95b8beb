"""Serve given objects of a store to one ffmpeg over HTTP on 127.0.0.1, so that it can seek in them.

ffmpeg could open an `s3://` object only with our credentials, and an URL only with a socket of its own. So it
sees nothing but this server: a port of its own for each transcode, unguessable paths, exactly the objects
that were shared. When the store fails, the connection is cut and the failure kept: ffmpeg takes a source
that ends half-way for a short one and exits with 0, so whoever ran it asks `raise_failure` first.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from shared.kernel.errors import SpoolError
from shared.storage.port import Storage, StoredObject

REQUEST_BYTES = 8 * 1024  # ffmpeg's requests have some 200
REQUEST_S = 10.0  # from connecting to the end of the request
CONNECTIONS = 256  # at once: one per input, and some that ffmpeg is about to close
ACCEPT_AGAIN_S = 0.1  # when there is no descriptor left for a connection
# What is read from the store at once, and held: a little after each seek, more when it reads on. It is read
# completely before it is sent, since ffmpeg may pause for minutes, which no store's connection survives.
FIRST_WINDOW_BYTES = 256 * 1024
LAST_WINDOW_BYTES = 2 * 1024 * 1024
SEND_BUFFER_BYTES = 128 * 1024  # else the kernel takes megabytes that ffmpeg never reads

_RANGE = re.compile(r"^bytes=(\d{1,18})-(\d{0,18})$")


class _Refused(Exception):
    """The request is answered with this status and nothing else."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(status)


class Loopback:
    """The server. Use it as an async context: it ends, with all its connections, when the context does."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._objects: dict[str, StoredObject] = {}
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._listening: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failure: SpoolError | None = None

    async def __aenter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        self._listening.settimeout(0)
        # Not asyncio's Server: closed while it accepts, it leaves that connection to the garbage collector,
        # which complains on stderr, or it waits for its end. `sock_accept` loses one when it is cancelled.
        self._listen(self._listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None  # entered
        self._pause(self._listening)
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        self._listening.close()

    def share(self, stored: StoredObject) -> str:
        """Serve an object as it is now, and return its URL."""
        assert self._listening is not None  # entered
        port = self._listening.getsockname()[1]
        path = f"/{secrets.token_urlsafe(32)}"
        self._objects[path] = stored
        return f"http://127.0.0.1:{port}{path}"

    def raise_failure(self) -> None:
        """Raise what the store raised while an ffmpeg read from it, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _listen(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _pause(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listening)
        if self._again is not None:
            self._again.cancel()

    def _accept(self, listening: socket.socket) -> None:
        try:
            connected, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the other side has thought better of it
        except OSError:  # no descriptor left, or no memory: else the loop would ask without a pause
            self._pause(listening)
            self._again = asyncio.get_running_loop().call_later(ACCEPT_AGAIN_S, self._listen, listening)
            return
        connected.settimeout(0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if len(self._connections) >= CONNECTIONS:
            _reset(connected)
            connected.close()
            return
        connection = asyncio.create_task(self._answer(connected))
        self._connections[connection] = connected
        connection.add_done_callback(self._forget)

    def _forget(self, connection: asyncio.Task[None]) -> None:
        # Closed here, since a task that is cancelled before its first line has no `finally`.
        self._connections.pop(connection).close()

    async def _answer(self, connected: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connected, limit=REQUEST_BYTES)
        try:
            # ffmpeg closes a connection in the middle whenever it seeks.
            with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
                await self._respond(reader, writer)
        except SpoolError as failure:
            self._failure = self._failure or failure
        finally:
            if not writer.is_closing():
                _reset(connected)
                writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            stored, start, end = self._wanted(head.decode("latin-1"))
        except asyncio.LimitOverrunError:
            await _send_head(writer, "431 Request Header Fields Too Large", "Content-Length: 0")
        except _Refused as refused:
            await _send_head(writer, refused.status, "Content-Length: 0")
        else:
            await self._send(writer, stored, start, end)
        await _finish(writer)

    def _wanted(self, head: str) -> tuple[StoredObject, int, int]:
        """Return the object of a request, and which bytes of it."""
        request, *lines = head.split("\r\n")
        method, _, rest = request.partition(" ")
        if method != "GET":
            raise _Refused("405 Method Not Allowed")
        stored = self._objects.get(rest.partition(" ")[0])
        if stored is None:
            raise _Refused("404 Not Found")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        start, end = _range(fields.get("range"), stored.size_bytes)
        return stored, start, end

    async def _send(self, writer: asyncio.StreamWriter, stored: StoredObject, start: int, end: int) -> None:
        size_bytes = stored.size_bytes
        span = f"Content-Range: bytes {start}-{end - 1}/{size_bytes}"
        await _send_head(writer, "206 Partial Content", f"Content-Length: {end - start}", span)
        window_bytes = FIRST_WINDOW_BYTES
        while start < end:
            stop = min(end, start + window_bytes)
            writer.write(await self._read(stored, start, stop))
            await writer.drain()
            start, window_bytes = stop, min(2 * window_bytes, LAST_WINDOW_BYTES)

    async def _read(self, stored: StoredObject, start: int, end: int) -> bytes:
        reading = self._storage.read(stored.key, start=start, end=end, if_match=stored.etag)
        async with reading as chunks:
            return b"".join([chunk async for chunk in chunks])


def _range(field: str | None, size_bytes: int) -> tuple[int, int]:
    """Return [start, end) of a Range field: `a-` and `a-b` are all that ffmpeg asks for."""
    if field is None:
        field = "bytes=0-"
    match = _RANGE.match(field)
    if match is None:
        raise _Refused("400 Bad Request")
    start = int(match[1])
    end = min(int(match[2]) + 1, size_bytes) if match[2] else size_bytes
    if start >= end:
        raise _Refused("416 Range Not Satisfiable")
    return start, end


async def _send_head(writer: asyncio.StreamWriter, status: str, *fields: str) -> None:
    lines = (f"HTTP/1.1 {status}", *fields, "Accept-Ranges: bytes", "Connection: close", "", "")
    writer.write("\r\n".join(lines).encode("latin-1"))
    await writer.drain()


def _reset(connected: socket.socket) -> None:
    """Let its closing reset the connection: what was cut short must not look like the object's end."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _finish(writer: asyncio.StreamWriter) -> None:
    """Send what is buffered and close in good order."""
    writer.close()
    await writer.wait_closed()
