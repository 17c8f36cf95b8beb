"""One object on its way out of S3: by range, resumed where it broke, never a mixture of two versions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.kernel.errors import Conflict, Corrupt, Refused, SpoolError, Unavailable
from shared.storage.doors import CHUNK_BYTES
from shared.storage.s3_bucket import Bucket
from shared.storage.s3_errors import S3_FAILURES, status_of, told_s3
from shared.storage.s3_patience import Patience

if TYPE_CHECKING:
    from aiobotocore.response import StreamingBody
    from types_aiobotocore_s3.type_defs import GetObjectOutputTypeDef

_PROGRESS_BYTES = 1 << 20  # a connection that brought so much before it broke starts the count anew
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


class S3Reader:
    """Chunks of one object, pinned to the ETag of the first answer."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        *,
        start: int,
        end: int | None,
        count: Callable[[int], None],
        patience: Patience | None = None,
    ) -> None:
        """Prepare to read; `count` is told how many bytes came, `patience` how long that took."""
        self._bucket = bucket
        self._key = key
        self._position = start
        self._wanted_end = end
        self._end = start
        self._count = count
        self._etag: str | None = None
        self.size_bytes = 0  # of the whole object, once it is open
        self._body: StreamingBody | None = None
        self._failures = 0
        self._failed_at = start
        self._patience = patience or Patience(key, bucket.limits)

    @property
    def etag(self) -> str | None:
        """That of the first answer, or the one that was asked for."""
        return self._etag

    async def open(self, if_match: str | None) -> None:
        """Send the first request. Raises NotFound, Conflict, Corrupt or Unavailable."""
        self._etag = if_match
        if self._position == self._wanted_end:
            await self._open_nothing()  # an empty range cannot be said in HTTP
        else:
            await self._connect()

    async def close(self) -> None:
        """Drop the connection, unless its body was read to the end: then it is in the pool again."""
        self._drop()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def __aiter__(self) -> S3Reader:
        return self

    async def __anext__(self) -> bytes:
        while self._position < self._end:
            chunk = await self._receive()
            if chunk:
                self._position += len(chunk)
                self._count(len(chunk))
                return chunk
        raise StopAsyncIteration

    async def _receive(self) -> bytes:
        assert self._body is not None, "a reader is open while it is read"
        begun_s = asyncio.get_running_loop().time()
        try:
            chunk: bytes = await self._body.read(min(CHUNK_BYTES, self._end - self._position))
        except S3_FAILURES as error:
            await self._resume(told_s3(self._key, error))
            return b""
        self._patience.waited(asyncio.get_running_loop().time() - begun_s, len(chunk))
        if not chunk:
            await self._resume(Unavailable(f"the body of {self._key} broke off"))
        return chunk

    async def _resume(self, error: SpoolError) -> None:
        self._drop()
        if self._position - self._failed_at >= _PROGRESS_BYTES:
            self._failures = 0
        self._failed_at = self._position
        self._failures += 1
        limits = self._bucket.limits
        if self._failures >= limits.attempts:
            raise Unavailable(f"{self._key} breaks off at byte {self._position} again and again") from error
        await asyncio.sleep(min(limits.wait_s * 2 ** (self._failures - 1), limits.wait_max_s))
        await self._connect()

    async def _connect(self) -> None:
        try:
            answer = await self._bucket.get(self._key, self._range(), self._etag)
        except Refused as error:
            if status_of(error.__cause__) != 416:
                raise
            await self._open_nothing()
            return
        self._body = answer["Body"]
        self._accept(answer)

    def _range(self) -> str | None:
        end = self._end if self._end > self._position else self._wanted_end
        if end is not None:
            return f"bytes={self._position}-{end - 1}"
        # An empty object has no byte 0 to ask for.
        return f"bytes={self._position}-" if self._position else None

    def _accept(self, answer: GetObjectOutputTypeDef) -> None:
        """Check that the answer is what was asked for. Raises Conflict, Corrupt or Refused."""
        self._pin(answer["ETag"])
        start, size_bytes = 0, answer["ContentLength"]
        if found := _CONTENT_RANGE.match(answer.get("ContentRange", "")):
            start, size_bytes = int(found[1]), int(found[3])
        if start != self._position:
            raise Refused(
                f"the store answers byte {start} of {self._key} when asked for byte {self._position}"
            )
        self._end = self._checked_end(size_bytes)

    async def _open_nothing(self) -> None:
        """Receive nothing; what is there must still be what was asked for."""
        head = await self._bucket.head(self._key)
        self._pin(head["ETag"])
        self._end = self._checked_end(head["ContentLength"])
        if self._end > self._position:
            raise Unavailable(f"the store refuses bytes of {self._key} that it says it has")

    def _pin(self, etag: str) -> None:
        # Compared here as well: not every server honours If-Match.
        if self._etag is not None and etag != self._etag:
            raise Conflict(f"{self._key} changed since it was looked at")
        self._etag = etag

    def _checked_end(self, size_bytes: int) -> int:
        end = size_bytes if self._wanted_end is None else self._wanted_end
        check_end(self._key, size_bytes, max(end, self._position))
        self.size_bytes = size_bytes
        return end


def check_end(key: str, size_bytes: int, end: int) -> None:
    """Raise Corrupt when an object ends before byte `end`."""
    if end > size_bytes:
        raise Corrupt(f"{key} ends at byte {size_bytes}, before byte {end}")
