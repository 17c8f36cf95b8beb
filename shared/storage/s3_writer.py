"""One object on its way into S3: a single PUT when it is small, else a multipart upload.

Nothing is visible until the last request, then all of it is. That request may have worked although no answer
came; so each object carries a mark of its writer in its metadata, and when in doubt the writer looks whether
the object that is there bears its own.

The SHA-256 of a stream is known at its end, the metadata of a multipart upload are fixed at its beginning.
So `head` knows the digest of small objects only; the writer's `stored` has it when all bytes passed here in
their order, and whoever needs it later keeps it in a row. The way of each part is checked by CRC32, and so is
the whole, where the server compares it; its size always.

What the store copies by itself is told apart from what is sent by nothing but who tells its CRC32. An object
whose head comes last keeps room for it in the first part, which is held until then.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import zlib
from typing import TYPE_CHECKING

from shared.database.cancellation import to_the_end
from shared.kernel.errors import Bug, Conflict, Corrupt, NotFound, Refused, SpoolError, Unavailable
from shared.observability.metrics import STORAGE_WRITTEN_BYTES
from shared.storage import crc32
from shared.storage.copying import copy_by_reading
from shared.storage.doors import SHA256_NAME, UPLOAD_NAME, admit_copy, admit_head
from shared.storage.multipart import UploadJournal
from shared.storage.port import COPIED_BYTES, Storage, StoredObject, WriteOptions
from shared.storage.s3_bucket import Bucket, whole_crc32
from shared.storage.s3_copying import Copier
from shared.storage.s3_upload import MultipartUpload

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import HeadObjectOutputTypeDef

_SMALL_BYTES = 1 << 20  # of an object that is not worth the memory of a whole part


class S3Writer:
    """Fills parts in memory; how many there are at once does not depend on the length."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        options: WriteOptions,
        journal: UploadJournal | None,
        *,
        storage: Storage,
    ) -> None:
        """Prepare; nothing is sent before the first part is full. `storage` reads what cannot be copied."""
        self._storage = storage
        self._bucket = bucket
        self._key = key
        self._options = options
        self._mark = secrets.token_hex(16)
        self._spare: list[io.BytesIO] = []  # of parts that were sent
        self._upload = MultipartUpload(bucket, key, options, journal, on_sent=self._reuse)
        self._copier = Copier(bucket, self._upload, storage=storage, create=self._create)
        self._filling = io.BytesIO()
        self._is_large = False  # more than one write can be expected to bring
        self._held: io.BytesIO | None = None  # what follows the head in the first part
        self._head: bytes | None = None
        self._sha256 = hashlib.sha256()
        self._in_order = True  # whether all bytes came here, each after the one before it
        self._crc32: int | None = None
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
        if not self._is_large and self._filling.tell() + len(rest) > _SMALL_BYTES:
            self._is_large, small = True, self._filling
            self._filling = _roomy(self._part_bytes)
            self._filling.write(small.getvalue())
        while rest:
            room_bytes = self._part_bytes - self._filling.tell()
            self._filling.write(rest[:room_bytes])
            rest = rest[room_bytes:]
            if self._filling.tell() == self._part_bytes:
                await self._end_part()

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        admit_copy(source, start, end)
        lead_end = min(start + self._lacking_bytes, end)
        position, copied_bytes = start, 0
        if end - lead_end >= COPIED_BYTES and await self._copier.can_copy(source):
            await copy_by_reading(self._storage, self, source, start, lead_end)
            if self._filling.tell():
                await self._end_part()
            position = await self._copier.copy(source, lead_end, end)
            copied_bytes = position - lead_end
        await copy_by_reading(self._storage, self, source, position, end)
        self._size_bytes += copied_bytes
        self._in_order = self._in_order and not copied_bytes
        return copied_bytes

    async def prepend(self, head: bytes) -> None:
        admit_head(self._options, self._head)
        self._head = head

    async def complete(self) -> None:
        """Send the rest and make the object visible, unless a condition fails. Raises Conflict."""
        if self._options.head_last and self._head is None:
            raise Bug(f"{self._key} was to get its head last, and got none")
        self._filling.truncate()
        if self._upload.is_created:
            await self._send_last()
        if self._options.before_completion:
            await self._options.before_completion()
        # From here on the store decides. A cancellation waits for its word.
        await to_the_end(self._finish())

    async def discard(self) -> None:
        """Leave nothing behind: no upload, no part."""
        await self._upload.discard()

    @property
    def _holds_back(self) -> bool:
        """Whether the part that is filled is the one that waits for the head."""
        return self._options.head_last and self._held is None

    @property
    def _part_bytes(self) -> int:
        return COPIED_BYTES if self._holds_back else self._upload.next_part_bytes

    @property
    def _lacking_bytes(self) -> int:
        """How much has to be read before the part that is filled can end; an empty one need not begin."""
        if not self._filling.tell() and not self._holds_back:
            return 0
        return max(0, COPIED_BYTES - self._filling.tell())

    async def _end_part(self) -> None:
        body = self._filling
        body.truncate()
        if self._holds_back:
            self._held = body
            self._filling = _roomy(self._part_bytes)
            return
        await self._create()
        await self._upload.send(body, await self._digested(body))
        self._filling = self._spare.pop() if self._spare else _roomy(self._part_bytes)

    def _reuse(self, body: io.BytesIO) -> None:
        body.seek(0)
        self._spare.append(body)

    async def _create(self) -> None:
        if not self._upload.is_created:
            await self._upload.create(self._options.metadata | {UPLOAD_NAME: self._mark})

    async def _send_last(self) -> None:
        if self._filling.tell():
            await self._end_part()
        if self._options.head_last:
            self._in_order = False
            first = self._with_head()
            await self._upload.send(first, await self._digested(first), number=1)
        await self._upload.settle()
        self._crc32 = self._upload.crc32

    def _with_head(self) -> io.BytesIO:
        """Return what is held back, behind its head; it is not held any longer."""
        whole = io.BytesIO()
        whole.write(self._head or b"")
        for body in (self._held, None if self._upload.is_created else self._filling):
            if body is not None:
                whole.write(body.getbuffer())
        self._held = None
        return whole

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
        body = self._with_head() if self._options.head_last else self._filling
        checksum = await self._digested(body)
        self._crc32 = crc32.decoded(checksum)
        metadata = self._options.metadata | {UPLOAD_NAME: self._mark, SHA256_NAME: self._sha256.hexdigest()}
        await self._bucket.put(self._key, body, checksum=checksum, metadata=metadata, options=self._options)

    async def _worked_all_the_same(self) -> bool:
        """Say whether the object that is there is ours: an answer was lost, and its repetition refused."""
        try:
            return self._bears_our_mark(await self._bucket.head(self._key))
        except SpoolError:
            return False

    async def _confirmed(self) -> StoredObject:
        """Look at what became of it. Raises Conflict, Corrupt or Refused."""
        head = await self._bucket.head(self._key)
        if not self._bears_our_mark(head):
            raise Conflict(f"{self._key} was replaced by another writer at once")
        if wrong := self._wrong_with(head):
            await self._bucket.delete(self._key, if_match=head["ETag"])
            raise Corrupt(f"{self._key} {wrong}")
        if not self._bucket.keeping.is_obeyed(head):
            await self._bucket.delete(self._key, if_match=head["ETag"])
            hint = "let the server encrypt, or leave the option encryption out of SPOOL_STORAGE"
            raise Refused(f"the store did not encrypt {self._key} as it was asked to", hint=hint)
        return StoredObject(
            key=self._key,
            size_bytes=self._size_bytes,
            etag=head["ETag"],
            modified_ms=int(head["LastModified"].timestamp() * 1000),
            content_type=self._options.content_type,
            sha256=self._sha256.hexdigest() if self._in_order else None,
            crc32=crc32.in_hex(self._crc32),
        )

    def _wrong_with(self, head: HeadObjectOutputTypeDef) -> str | None:
        """Say what of the object is not what was sent."""
        if head["ContentLength"] != self._size_bytes:
            return f"has {head['ContentLength']} bytes, of {self._size_bytes} that were sent"
        ours, told = crc32.in_hex(self._crc32), whole_crc32(head)
        if ours is not None and told is not None and ours != told:
            return f"has the CRC32 {told}; what was sent has {ours}"
        return None

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
            return crc32.encoded(zlib.crc32(view))


def _roomy(size_bytes: int) -> io.BytesIO:
    """Return an empty buffer that has its memory at once: grown step by step, it leaves holes behind."""
    body = io.BytesIO()
    body.seek(size_bytes - 1)
    body.write(b"\0")
    body.seek(0)
    return body
