"""One object on its way into S3: a single PUT when it is small, else a multipart upload.

Nothing is visible until the last request, then all of it is. That request may have worked although no answer
came; so each object carries a mark of its writer in its metadata, and when in doubt the writer looks whether
the object that is there bears its own.

The SHA-256 of a stream is known at its end, the metadata of a multipart upload are fixed at its beginning.
So `head` knows the digest of small objects only; the writer's `stored` has it always, and whoever needs it
later keeps it in a row. The way of each part is checked by CRC32, the whole by its size.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import secrets
import zlib
from typing import TYPE_CHECKING

from shared.database.cancellation import to_the_end
from shared.kernel.errors import Bug, Conflict, Corrupt, NotFound, SpoolError, Unavailable
from shared.observability.metrics import STORAGE_WRITTEN_BYTES
from shared.storage.doors import SHA256_NAME, UPLOAD_NAME
from shared.storage.multipart import UploadJournal
from shared.storage.port import StoredObject, WriteOptions
from shared.storage.s3_bucket import Bucket
from shared.storage.s3_upload import MultipartUpload

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import HeadObjectOutputTypeDef


class S3Writer:
    """Fills parts in memory; how many there are at once does not depend on the length."""

    def __init__(
        self, bucket: Bucket, key: str, options: WriteOptions, journal: UploadJournal | None
    ) -> None:
        """Prepare; nothing is sent before the first part is full."""
        self._bucket = bucket
        self._key = key
        self._options = options
        self._mark = secrets.token_hex(16)
        self._upload = MultipartUpload(bucket, key, options, journal)
        self._filling = io.BytesIO()
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._stored: StoredObject | None = None

    @property
    def stored(self) -> StoredObject:
        if self._stored is None:
            raise Bug(f"{self._key} was asked for before it was complete")
        return self._stored

    @property
    def is_complete(self) -> bool:
        return self._stored is not None

    async def write(self, chunk: bytes | memoryview) -> None:
        rest = memoryview(chunk).cast("B")
        while rest:
            room_bytes = self._upload.next_part_bytes - self._filling.tell()
            self._filling.write(rest[:room_bytes])
            rest = rest[room_bytes:]
            if self._filling.tell() == self._upload.next_part_bytes:
                await self._send_part()

    async def complete(self) -> None:
        """Send the rest and make the object visible, unless a condition fails. Raises Conflict."""
        if self._upload.is_created:
            await self._send_last()
        if self._options.before_completion:
            await self._options.before_completion()
        # From here on the store decides. A cancellation waits for its word.
        await to_the_end(self._finish())

    async def discard(self) -> None:
        """Leave nothing behind: no upload, no part."""
        await self._upload.discard()

    async def _send_part(self) -> None:
        if not self._upload.is_created:
            await self._upload.create(self._options.metadata | {UPLOAD_NAME: self._mark})
        body, self._filling = self._filling, io.BytesIO()
        await self._upload.send(body, await self._digested(body))

    async def _send_last(self) -> None:
        if self._filling.tell():
            await self._send_part()
        await self._upload.settle()

    async def _finish(self) -> None:
        try:
            if self._upload.is_created:
                await self._upload.complete()
            else:
                await self._put()
        except NotFound as error:  # S3's word for If-Match where nothing is
            raise Conflict(f"{self._key} is no longer there to be replaced") from error
        except (Conflict, Unavailable):
            if not await self._worked_all_the_same():
                raise
        self._stored = await self._confirmed()
        await self._upload.forget()

    async def _put(self) -> None:
        checksum = await self._digested(self._filling)
        metadata = self._options.metadata | {UPLOAD_NAME: self._mark, SHA256_NAME: self._sha256.hexdigest()}
        await self._bucket.put(
            self._key, self._filling, checksum=checksum, metadata=metadata, options=self._options
        )

    async def _worked_all_the_same(self) -> bool:
        """Say whether the object that is there is ours: an answer was lost, and its repetition refused."""
        try:
            return self._bears_our_mark(await self._bucket.head(self._key))
        except SpoolError:
            return False

    async def _confirmed(self) -> StoredObject:
        """Look at what became of it. Raises Conflict or Corrupt."""
        head = await self._bucket.head(self._key)
        if not self._bears_our_mark(head):
            raise Conflict(f"{self._key} was replaced by another writer at once")
        if head["ContentLength"] != self._size_bytes:
            await self._bucket.delete(self._key, if_match=head["ETag"])
            raise Corrupt(
                f"{self._key} has {head['ContentLength']} bytes, of {self._size_bytes} that were sent"
            )
        return StoredObject(
            key=self._key,
            size_bytes=self._size_bytes,
            etag=head["ETag"],
            modified_ms=int(head["LastModified"].timestamp() * 1000),
            content_type=self._options.content_type,
            sha256=self._sha256.hexdigest(),
        )

    def _bears_our_mark(self, head: HeadObjectOutputTypeDef) -> bool:
        return head["Metadata"].get(UPLOAD_NAME) == self._mark

    async def _digested(self, body: io.BytesIO) -> str:
        """Add a part to the SHA-256 of the whole, and return its CRC32 as S3 writes it."""
        return await to_the_end(asyncio.to_thread(self._digest, body))

    def _digest(self, body: io.BytesIO) -> str:
        with body.getbuffer() as view:
            self._sha256.update(view)
            self._size_bytes += len(view)
            STORAGE_WRITTEN_BYTES.inc(len(view))
            return base64.b64encode(zlib.crc32(view).to_bytes(4, "big")).decode()
