"""A long range of one object on its way out of S3: its next pieces come while the one before is taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from shared.storage.s3_bucket import Bucket
from shared.storage.s3_patience import Patience
from shared.storage.s3_reader import S3Reader, check_end


class ReadAhead:
    """Chunks of a range, in order, of which several pieces are asked for at the same time.

    The first piece comes alone, as it arrives, and each that was taken lets one more come ahead, up to
    `readers` at once: whoever reads a little of a large object costs its server little more than that.
    """

    def __init__(
        self, bucket: Bucket, key: str, *, start: int, end: int, count: Callable[[int], None]
    ) -> None:
        """Prepare to read; `count` is told how many bytes came."""
        self._bucket = bucket
        self._key = key
        self._end = end
        self._count = count
        self._patience = Patience(key, bucket.limits)
        self._next = min(end, start + bucket.limits.piece_bytes)  # where the next piece begins
        self._first: S3Reader | None = S3Reader(
            bucket, key, start=start, end=self._next, count=count, patience=self._patience
        )
        self._etag: str | None = None
        self._taken = 0  # pieces
        self._arrived: deque[bytes] = deque()
        self._coming: deque[asyncio.Task[list[bytes]]] = deque()

    async def open(self, if_match: str | None) -> None:
        """Send the first request. Raises NotFound, Conflict, Corrupt or Unavailable."""
        assert self._first is not None, "a reader is opened once"
        await self._first.open(if_match)
        check_end(self._key, self._first.size_bytes, self._end)
        self._etag = self._first.etag

    async def close(self) -> None:
        """Drop what is on its way."""
        if self._first is not None:
            await self._first.close()
        for task in self._coming:
            task.cancel()
        await asyncio.gather(*self._coming, return_exceptions=True)

    def __aiter__(self) -> ReadAhead:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            if chunk := await anext(self._first, b""):
                return chunk
            await self._first.close()
            self._first = None
            self._take([])
        while not self._arrived:
            if not self._coming:
                raise StopAsyncIteration
            begun_s = asyncio.get_running_loop().time()
            # It stays in the queue while it is awaited, so that `close` always finds it.
            piece = await self._coming[0]
            self._coming.popleft()
            self._take(piece)
            waited_s = asyncio.get_running_loop().time() - begun_s
            self._patience.waited(waited_s, sum(map(len, piece)))
        return self._arrived.popleft()

    def _take(self, piece: list[bytes]) -> None:
        self._arrived.extend(piece)
        self._taken += 1
        limits = self._bucket.limits
        while len(self._coming) < min(self._taken, limits.readers - 1) and self._next < self._end:
            start, self._next = self._next, min(self._end, self._next + limits.piece_bytes)
            self._coming.append(asyncio.create_task(self._fetch(start, self._next)))

    async def _fetch(self, start: int, end: int) -> list[bytes]:
        reader = S3Reader(self._bucket, self._key, start=start, end=end, count=self._count)
        try:
            await reader.open(self._etag)
            return [chunk async for chunk in reader]
        finally:
            await reader.close()
