"""Bytes that never leave S3: ranges of an object that the store itself copies into the parts of another.

Servers differ in that, and it shows in their answers only. MinIO refuses `UploadPartCopy` into an upload with
checksums. versitygw takes it, and where the source has a checksum it tells that one instead of the range's:
it would not match what is read later. Both copy well into an upload without checksums. So before a source
is copied from, the store copies one byte of it, to where the part lies that is sent next.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable

import structlog

from shared.kernel.errors import Conflict, Refused
from shared.observability.metrics import STORAGE_COPIED_BYTES
from shared.storage.port import Storage, StoredObject
from shared.storage.s3_bucket import Bucket, Copying
from shared.storage.s3_errors import NotLetIn
from shared.storage.s3_parts import copied_ranges
from shared.storage.s3_upload import MultipartUpload

log = structlog.get_logger()


class Copier:
    """Lets a store copy into one upload what it can."""

    def __init__(
        self,
        bucket: Bucket,
        upload: MultipartUpload,
        *,
        storage: Storage,
        create: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare; `create` creates the upload unless it is, and `storage` reads what is compared."""
        self._bucket = bucket
        self._upload = upload
        self._storage = storage
        self._create = create

    async def can_copy(self, source: StoredObject) -> bool:
        """Say whether the store copies out of `source`, which is not empty, into the upload.

        An upload that has no part yet is begun again without checksums, where that helps. What the store
        cannot do is remembered. Raises Conflict when the source has another ETag, NotFound, Unavailable.
        """
        bucket, upload = self._bucket, self._upload
        try:
            if upload.is_checked and bucket.copying is Copying.CHECKED:
                if await self._try(source) is Copying.CHECKED:
                    return True
                self._learn(Copying.UNCHECKED)
            if bucket.copying is Copying.IMPOSSIBLE or (upload.is_checked and upload.has_parts):
                return False
            await upload.drop_checksums()
            if await self._try(source) is not Copying.IMPOSSIBLE:
                return True
            self._learn(Copying.IMPOSSIBLE)
        except NotLetIn as error:  # reading will tell whether that is all that we are not allowed to
            log.warning("storage.copy_refused", key=source.key, error=str(error))
        return False

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        """Let the store copy at least 5 MiB, and return up to where it did: to `end`, or not at all.

        Raises Conflict when the source no longer has its ETag, NotFound, Unavailable.
        """
        ranges = copied_ranges(start, end, self._upload.next_number)
        try:
            await self._upload.try_copy(source, *next(ranges))
        except (Refused, NotLetIn) as error:
            log.warning("storage.copy_refused", key=source.key, error=str(error))
            return start
        for part_start, part_end in ranges:
            await self._upload.copy(source, part_start, part_end)
        await self._upload.settle()
        # Looked at as well: not every server honours the condition of a copy.
        if (await self._bucket.head(source.key))["ETag"] != source.etag:
            raise Conflict(f"{source.key} changed while it was copied")
        STORAGE_COPIED_BYTES.inc(end - start)
        return end

    async def _try(self, source: StoredObject) -> Copying:
        await self._create()
        try:
            told = await self._upload.copy_first_byte(source)
        except Refused as error:
            log.info("storage.copy_refused", key=source.key, error=str(error))
            return Copying.IMPOSSIBLE
        if told is None:
            return Copying.UNCHECKED
        return Copying.CHECKED if told == await self._first_byte_crc32(source) else Copying.UNCHECKED

    async def _first_byte_crc32(self, source: StoredObject) -> int:
        async with self._storage.read(source.key, start=0, end=1, if_match=source.etag) as chunks:
            return zlib.crc32(b"".join([chunk async for chunk in chunks]))

    def _learn(self, copying: Copying) -> None:
        self._bucket.copying = copying
        log.warning("storage.copies_less", bucket=self._bucket.name, found=copying.value)
