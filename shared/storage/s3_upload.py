"""One multipart upload: journalled before it is created, and gone when it is not completed."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shared.database.cancellation import to_the_end
from shared.kernel.errors import Permanent, Refused, SpoolError
from shared.storage import crc32
from shared.storage.multipart import UploadJournal
from shared.storage.port import StoredObject, UploadedPart, WriteOptions
from shared.storage.s3_bucket import Bucket, CreatedUpload
from shared.storage.s3_parts import MAX_PARTS, part_bytes, parts_in_flight

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

Sending = Callable[[], Coroutine[Any, Any, "CompletedPartTypeDef"]]

_DISCARD_S = 30.0  # what cannot be aborted in this time is left to the sweeper


class MultipartUpload:
    """Sends parts, a few at a time. Without a journal only its age tells the sweeper what a kill left."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        options: WriteOptions,
        journal: UploadJournal | None,
        *,
        checked: bool = True,
        on_sent: Callable[[io.BytesIO], None] | None = None,
    ) -> None:
        """Prepare; nothing is sent before `create`. Only what is `checked` has checksums at its end.

        `on_sent` is handed each part that has arrived: nobody reads it any more.
        """
        self._bucket = bucket
        self._key = key
        self._options = options
        self._journal = journal
        self._row_id: int | None = None
        self._checked = checked
        self._on_sent = on_sent
        self._created: CreatedUpload | None = None
        self._in_flight: deque[asyncio.Task[CompletedPartTypeDef]] = deque()
        self._parts: list[CompletedPartTypeDef] = []
        self._has_noted = False  # whether the store has any part
        self._sizes: dict[int, int] = {}  # by the part's number

    @property
    def is_created(self) -> bool:
        return self._created is not None

    @property
    def is_checked(self) -> bool:
        return self._checked

    @property
    def has_parts(self) -> bool:
        return bool(self._parts or self._in_flight)

    @property
    def next_number(self) -> int:
        """The number of the part that comes next."""
        first = 2 if self._options.head_last else 1
        return len(self._parts) + len(self._in_flight) + first

    @property
    def crc32(self) -> int | None:
        """Of all bytes, once the parts have arrived; None when the store did not tell that of a part."""
        known: list[tuple[int, int]] = []
        for part in self._in_order():
            checksum = crc32.decoded(part.get("ChecksumCRC32"))
            if checksum is None:
                return None
            known.append((checksum, self._sizes[part["PartNumber"]]))
        return crc32.combined(known)

    @property
    def next_part_bytes(self) -> int:
        """How large the part is that comes next."""
        return part_bytes(self.next_number)

    async def create(self, metadata: dict[str, str]) -> None:
        """Create the upload. Raises Refused or Unavailable."""
        # To the end, because a cancelled request leaves open whether there is an upload now.
        await to_the_end(self._create(metadata))

    async def send(self, body: io.BytesIO, checksum: str, *, number: int | None = None) -> None:
        """Begin to send the next part. Waits while as many as there may be are on their way.

        `number` is 1 for the part with the head, where that is known last.
        """
        number = number or self.next_number
        size_bytes = body.getbuffer().nbytes
        await self._begin(number, size_bytes, lambda: self._send(number, body, checksum))

    async def copy(self, source: StoredObject, start: int, end: int) -> None:
        """Begin to let the store copy bytes of another object into the next part; waits as `send` does."""
        number = self.next_number
        await self._begin(number, end - start, lambda: self._copy(number, source, start, end))

    async def try_copy(self, source: StoredObject, start: int, end: int) -> None:
        """Let the store copy bytes of another object into the next part, and wait for it.

        Raises Refused when it does not: the next part is still to be sent. Conflict, NotFound, Unavailable.
        """
        await self.settle()
        number = self.next_number
        part = await self._copy(number, source, start, end)
        self._sizes[number] = end - start
        await self._note(part)
        self._parts.append(part)

    async def copy_first_byte(self, source: StoredObject) -> int | None:
        """Let the store copy a byte to where the next part goes; returns its CRC32, if the store tells one.

        Raises Refused when it does not copy, Conflict, NotFound, Unavailable.
        """
        part = await self._copy(self.next_number, source, 0, 1)
        return crc32.decoded(part.get("ChecksumCRC32"))

    async def drop_checksums(self) -> None:
        """Begin again without checksums, unless it has none. It has no part yet."""
        if not self._checked:
            return
        await to_the_end(self.discard())
        self._created, self._row_id, self._checked = None, None, False

    async def settle(self) -> None:
        """Wait until all parts have arrived."""
        while self._in_flight:
            await self._settle_oldest()

    async def complete(self) -> None:
        """Make the parts one object, if the conditions hold. Raises Conflict, NotFound or Unavailable."""
        created, parts, checksum = self._known(), self._in_order(), None
        if created.has_whole and self.crc32 is not None:
            checksum = crc32.encoded(self.crc32)
        if not created.has_checksums:
            parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
        await self._bucket.complete_upload(
            self._key, created.upload_id, parts, self._options, checksum=checksum
        )

    async def forget(self) -> None:
        """Remove the row: the upload has ended."""
        if self._journal and self._row_id is not None:
            await self._journal.forget(self._row_id)

    async def discard(self) -> None:
        """Abort the upload, if there is one, and forget it; one of a capture stays as it is."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        if self._created is None:
            return  # the row of an upload that may have been created, though nobody heard so, stays
        if self._options.is_capture and self._has_noted:
            return  # what was captured once cannot be made again: the sweeper completes it
        # What fails here is not the error to tell; the row is there for the sweeper.
        with suppress(SpoolError, TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                await self._bucket.abort_upload(self._key, self._created.upload_id)
                await self.forget()

    def _known(self) -> CreatedUpload:
        assert self._created is not None, "an upload is created before its parts are sent"
        return self._created

    def _in_order(self) -> list[CompletedPartTypeDef]:
        return sorted(self._parts, key=lambda part: part["PartNumber"])

    async def _create(self, metadata: dict[str, str]) -> None:
        if self._journal:
            self._row_id = await self._journal.begin(
                self._key, self._options.owner, is_capture=self._options.is_capture
            )
        try:
            self._created = await self._bucket.create_upload(
                self._key, metadata=metadata, options=self._options, checked=self._checked
            )
        except Permanent:
            await self.forget()
            raise
        if self._journal and self._row_id is not None:
            await self._journal.created(self._row_id, self._created.upload_id)

    async def _begin(self, number: int, size_bytes: int, sending: Sending) -> None:
        if number > MAX_PARTS:
            raise Refused(f"{self._key} is larger than S3 can hold")
        while len(self._in_flight) >= parts_in_flight(number):
            await self._settle_oldest()
        self._sizes[number] = size_bytes
        self._in_flight.append(asyncio.create_task(self._noted(sending)))

    async def _send(self, number: int, body: io.BytesIO, checksum: str) -> CompletedPartTypeDef:
        part = await self._bucket.upload_part(self._key, self._known().upload_id, number, body, checksum)
        if self._on_sent is not None:
            self._on_sent(body)
        return part

    async def _copy(self, number: int, source: StoredObject, start: int, end: int) -> CompletedPartTypeDef:
        at = f"bytes={start}-{end - 1}"
        return await self._bucket.copy_part(self._key, self._known().upload_id, number, source, at)

    async def _settle_oldest(self) -> None:
        part = await self._in_flight[0]
        self._in_flight.popleft()
        self._parts.append(part)

    async def _noted(self, sending: Sending) -> CompletedPartTypeDef:
        """Send a part, and write down that it is there: at once, whoever waits for it when."""
        part = await sending()
        await self._note(part)
        return part

    async def _note(self, part: CompletedPartTypeDef) -> None:
        if self._journal and self._row_id is not None:
            number, checksum = part["PartNumber"], crc32.decoded(part.get("ChecksumCRC32"))
            arrived = UploadedPart(number, self._sizes[number], part["ETag"], checksum)
            await self._journal.part(self._row_id, arrived)
        self._has_noted = True
