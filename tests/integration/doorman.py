"""Somebody who stands before a real HTTP server and changes what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Doorman:
    """What happens to each chunk of a request and of an answer: heads come at the start of one.

    `answer` is asked first: a request that it answers by itself never reaches the server.
    """

    endpoint: str
    answer: Callable[[bytes], bytes | None] = lambda _: None
    change: Callable[[bytes], bytes] = lambda chunk: chunk

    @asynccontextmanager
    async def stand(self) -> AsyncIterator[str]:
        """Yield the endpoint that leads through the door."""
        connections: set[asyncio.Task[None] | None] = set()

        async def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            connections.add(asyncio.current_task())
            await self._serve(client, to_client)

        door = await asyncio.start_server(accept, "127.0.0.1", 0)
        host, port = door.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            door.close()
            await asyncio.gather(*filter(None, connections))

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server = urlsplit(self.endpoint)
        upstream, to_upstream = await asyncio.open_connection(server.hostname, server.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_requests(client, to_upstream, to_client))
                both.create_task(self._pass_answers(upstream, to_client))
        finally:
            to_client.close()
            to_upstream.close()

    async def _pass_requests(
        self, client: asyncio.StreamReader, to_upstream: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        while chunk := await client.read(CHUNK_BYTES):
            if (own := self.answer(chunk)) is not None:
                to_client.write(own)
            else:
                to_upstream.write(chunk)
                await to_upstream.drain()
        to_upstream.close()

    async def _pass_answers(self, upstream: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while chunk := await upstream.read(CHUNK_BYTES):
            to_client.write(self.change(chunk))
            await to_client.drain()
