"""One multipart upload: journalled before it is created, and gone when it is not completed."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.database.cancellation import to_the_end
from shared.kernel.errors import Permanent, Refused, SpoolError
from shared.storage.multipart import UploadJournal
from shared.storage.port import WriteOptions
from shared.storage.s3_bucket import Bucket
from shared.storage.s3_parts import MAX_PARTS, part_bytes, parts_in_flight

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

_DISCARD_S = 30.0  # what cannot be aborted in this time is left to the sweeper


class MultipartUpload:
    """Sends parts, a few at a time. Without a journal only its age tells the sweeper what a kill left."""

    def __init__(
        self, bucket: Bucket, key: str, options: WriteOptions, journal: UploadJournal | None
    ) -> None:
        """Prepare; nothing is sent before `create`."""
        self._bucket = bucket
        self._key = key
        self._options = options
        self._journal = journal
        self._row_id: int | None = None
        self._upload_id: str | None = None
        self._in_flight: deque[asyncio.Task[CompletedPartTypeDef]] = deque()
        self._parts: list[CompletedPartTypeDef] = []

    @property
    def is_created(self) -> bool:
        return self._upload_id is not None

    @property
    def next_part_bytes(self) -> int:
        """How large the part is that comes next."""
        return part_bytes(self._next_number)

    async def create(self, metadata: dict[str, str]) -> None:
        """Create the upload. Raises Refused or Unavailable."""
        # To the end, because a cancelled request leaves open whether there is an upload now.
        await to_the_end(self._create(metadata))

    async def send(self, body: io.BytesIO, checksum: str) -> None:
        """Begin to send the next part. Waits while as many as there may be are on their way."""
        number = self._next_number
        if number > MAX_PARTS:
            raise Refused(f"{self._key} is larger than S3 can hold")
        while len(self._in_flight) >= parts_in_flight(number):
            await self._settle_oldest()
        self._in_flight.append(asyncio.create_task(self._send(number, body, checksum)))

    async def settle(self) -> None:
        """Wait until all parts have arrived."""
        while self._in_flight:
            await self._settle_oldest()

    async def complete(self) -> None:
        """Make the parts one object, if the conditions hold. Raises Conflict, NotFound or Unavailable."""
        assert self._upload_id is not None, "an upload is created before it is completed"
        await self._bucket.complete_upload(self._key, self._upload_id, self._parts, self._options)

    async def forget(self) -> None:
        """Remove the row: the upload has ended."""
        if self._journal and self._row_id is not None:
            await self._journal.forget(self._row_id)

    async def discard(self) -> None:
        """Abort the upload, if there is one, and forget it."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        if self._upload_id is None:
            return  # the row of an upload that may have been created, though nobody heard so, stays
        # What fails here is not the error to tell; the row is there for the sweeper.
        with suppress(SpoolError, TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                await self._bucket.abort_upload(self._key, self._upload_id)
                await self.forget()

    @property
    def _next_number(self) -> int:
        return len(self._parts) + len(self._in_flight) + 1

    async def _create(self, metadata: dict[str, str]) -> None:
        if self._journal:
            self._row_id = await self._journal.begin(self._key, self._options.owner)
        try:
            self._upload_id = await self._bucket.create_upload(
                self._key, metadata=metadata, options=self._options
            )
        except Permanent:
            await self.forget()
            raise
        if self._journal and self._row_id is not None:
            await self._journal.created(self._row_id, self._upload_id)

    async def _send(self, number: int, body: io.BytesIO, checksum: str) -> CompletedPartTypeDef:
        assert self._upload_id is not None, "an upload is created before its parts are sent"
        return await self._bucket.upload_part(self._key, self._upload_id, number, body, checksum)

    async def _settle_oldest(self) -> None:
        self._parts.append(await self._in_flight[0])
        self._in_flight.popleft()
        if self._journal and self._row_id is not None:
            await self._journal.part(self._row_id, len(self._parts))
