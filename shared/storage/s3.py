"""A bucket of S3, or of any server that speaks its language, as a store: `s3:`.

How requests are protected was chosen on purpose. Every part carries its CRC32, which the server checks. The
SHA-256 that SigV4 can sign besides costs 0.9 CPU seconds per GiB and protects against a stranger on the way
only. TLS does so already, and on loopback there is none. So payloads are signed exactly where the way is
plain HTTP to another machine. The checksum is a header, never a trailer: not every server takes those.

What it cannot promise: SeaweedFS walks by directories, so there `a/b` comes before `a-b`, against S3's order,
and a walk `after` a name that is a directory there leaves that directory out. A cancellation that arrives
while the store is completing an object waits for the outcome, and the object may then be there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from shared.database.cancellation import to_the_end
from shared.kernel.errors import NotFound, Unavailable
from shared.kernel.keys import check_key
from shared.observability.metrics import STORAGE_READ_BYTES
from shared.storage.doors import (
    RECOVERED,
    RECOVERED_NAME,
    SHA256_NAME,
    UPLOAD_NAME,
    admit_expiry,
    admit_key,
    admit_options,
    admit_range,
)
from shared.storage.multipart import UploadJournal
from shared.storage.port import StoredObject, UnfinishedUpload, UploadedPart, WriteOptions, Writer
from shared.storage.s3_address import S3Address
from shared.storage.s3_bucket import Bucket, whole_crc32
from shared.storage.s3_limits import S3Limits
from shared.storage.s3_read_ahead import ReadAhead
from shared.storage.s3_reader import S3Reader
from shared.storage.s3_recovery import complete_from_parts
from shared.storage.s3_writer import S3Writer
from shared.storage.sweeping import abort_abandoned

if TYPE_CHECKING:
    from datetime import datetime

    from types_aiobotocore_s3.type_defs import (
        ListMultipartUploadsRequestTypeDef,
        ListObjectsV2RequestTypeDef,
        ObjectTypeDef,
    )

_PAGE_UPLOADS = 1000  # S3's own limit; servers page through uploads in various wrong ways, so pages are large


class S3Storage:
    """The objects below one prefix of a bucket."""

    def __init__(self, bucket: Bucket, journal: UploadJournal | None, resources: AsyncExitStack) -> None:
        """Take what `open` made."""
        self._bucket = bucket
        self._journal = journal
        self._resources = resources
        self._bytes_read = 0

    @classmethod
    async def open(
        cls, url: str, *, journal: UploadJournal | None, limits: S3Limits | None = None
    ) -> S3Storage:
        """Open `s3://bucket/prefix?endpoint=…&region=…`, with the options of `Keeping` and `S3Limits`.

        Raises Refused for an address that is none.

        A service always gives the journal; only the command line, which has no database, goes without.
        """
        address = S3Address.parse(url)
        limits = limits or address.limits
        resources = AsyncExitStack()
        client = await resources.enter_async_context(
            get_session().create_client(
                "s3",
                region_name=address.region or ("us-east-1" if address.endpoint else None),
                endpoint_url=address.endpoint,
                config=_configuration(address, limits),
            )
        )
        return cls(Bucket(client, address, limits), journal, resources)

    @property
    def bytes_read(self) -> int:
        return self._bytes_read

    @property
    def bucket(self) -> Bucket:
        """The requests behind it, for whoever asks what the server can do."""
        return self._bucket

    async def head(self, key: str) -> StoredObject:
        head = await self._bucket.head(admit_key(key))
        return StoredObject(
            key=key,
            size_bytes=head["ContentLength"],
            etag=head["ETag"],
            modified_ms=_ms(head["LastModified"]),
            content_type=head.get("ContentType"),
            sha256=head["Metadata"].get(SHA256_NAME),
            crc32=whole_crc32(head),
            is_recovered=head["Metadata"].get(RECOVERED_NAME) == RECOVERED,
        )

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        admit_key(key)
        admit_range(start, end)
        reader = self._reader(key, start, end)
        try:
            await reader.open(if_match)
            yield reader
        finally:
            await reader.close()

    def _reader(self, key: str, start: int, end: int | None) -> S3Reader | ReadAhead:
        limits = self._bucket.limits
        if end is None or limits.readers == 1 or end - start <= 2 * limits.piece_bytes:
            return S3Reader(self._bucket, key, start=start, end=end, count=self._count)
        return ReadAhead(self._bucket, key, start=start, end=end, count=self._count)

    @asynccontextmanager
    async def writer(self, key: str, options: WriteOptions) -> AsyncIterator[Writer]:
        admit_key(key)
        admit_options(options)
        if self._journal:
            await abort_abandoned(self, self._journal, key=key, owner=options.owner)
        async with self._written(key, options) as writer:
            yield writer

    @asynccontextmanager
    async def _written(self, key: str, options: WriteOptions) -> AsyncIterator[Writer]:
        writer = S3Writer(self._bucket, key, options, self._journal, storage=self)
        try:
            yield writer
            await writer.complete()
        finally:
            if not writer.is_complete:
                await to_the_end(writer.discard())

    async def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        above = self._bucket.prefix
        wanted: ListObjectsV2RequestTypeDef = {
            "Bucket": self._bucket.name,
            "Prefix": above + prefix,
            "MaxKeys": self._bucket.limits.page_keys,
        }
        if after:
            wanted["StartAfter"] = above + after
        while True:
            page = await self._bucket.repeated(
                prefix or "the list", lambda: self._bucket.client.list_objects_v2(**wanted)
            )
            for listed in page.get("Contents", []):
                if _is_key(key := listed["Key"].removeprefix(above)):
                    yield _listed(key, listed)
            if not page.get("IsTruncated"):
                return
            wanted["ContinuationToken"] = page["NextContinuationToken"]

    async def delete(self, key: str) -> None:
        await self._bucket.delete(admit_key(key))

    async def presign(self, key: str, *, expires_s: int) -> str:
        admit_key(key)
        admit_expiry(expires_s)
        at = {"Bucket": self._bucket.name, "Key": self._bucket.prefix + key}
        return await self._bucket.once(
            key,
            lambda: self._bucket.client.generate_presigned_url("get_object", Params=at, ExpiresIn=expires_s),
        )

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        found = await self._listed(prefix)
        if self._journal is None:
            return found
        # MinIO lists the uploads of a key, and none below a prefix: those that are journalled are asked for.
        listed = {upload.key for upload in found}
        for key in sorted({row.key for row in await self._journal.rows()} - listed):
            if key.startswith(prefix):
                found += [upload for upload in await self._listed(key) if upload.key == key]
        return found

    async def _listed(self, prefix: str) -> list[UnfinishedUpload]:
        above = self._bucket.prefix
        wanted: ListMultipartUploadsRequestTypeDef = {
            "Bucket": self._bucket.name,
            "Prefix": above + prefix,
            "MaxUploads": _PAGE_UPLOADS,
        }
        found: list[UnfinishedUpload] = []
        while True:
            page = await self._bucket.repeated(
                "the uploads", lambda: self._bucket.client.list_multipart_uploads(**wanted)
            )
            for upload in page.get("Uploads", []):
                if upload["Key"].startswith(above + prefix):  # not every server looks at the prefix
                    key = upload["Key"].removeprefix(above)
                    found.append(UnfinishedUpload(key, upload["UploadId"], _ms(upload["Initiated"])))
            # SeaweedFS says that there is more, but not after what. The sweeper comes again for the rest.
            if not (page.get("IsTruncated") and page.get("NextKeyMarker")):
                return found
            wanted["KeyMarker"] = page["NextKeyMarker"]
            wanted["UploadIdMarker"] = page.get("NextUploadIdMarker", "")

    async def abort(self, upload: UnfinishedUpload) -> None:
        await self._bucket.abort_upload(upload.key, upload.upload_id)

    async def complete(self, upload: UnfinishedUpload, parts: Sequence[UploadedPart]) -> StoredObject | None:
        if not await complete_from_parts(self._bucket, upload, parts):
            return None
        return await self.head(upload.key)

    async def mark_recovered(self, key: str) -> StoredObject:
        # The metadata of an upload are fixed at its beginning. So the object is written anew, over itself:
        # where the store copies, its bytes stay there.
        found = await self.head(key)
        if found.is_recovered:
            return found
        head = await self._bucket.head(key)
        kept = {
            name: value for name, value in head["Metadata"].items() if name not in (UPLOAD_NAME, SHA256_NAME)
        }
        options = WriteOptions(
            content_type=found.content_type or WriteOptions().content_type,
            if_match=found.etag,
            metadata=kept | {RECOVERED_NAME: RECOVERED},
        )
        async with self._written(key, options) as writer:
            await writer.copy(found, 0, found.size_bytes)
        return replace(writer.stored, is_recovered=True)

    async def check(self) -> None:
        name = self._bucket.name
        try:
            await self._bucket.once(name, lambda: self._bucket.client.head_bucket(Bucket=name))
        except NotFound as error:
            raise Unavailable(
                f"there is no bucket {name}", hint="make it, or correct SPOOL_STORAGE"
            ) from error

    async def close(self) -> None:
        await self._resources.aclose()

    def _count(self, size_bytes: int) -> None:
        self._bytes_read += size_bytes
        STORAGE_READ_BYTES.inc(size_bytes)


def _configuration(address: S3Address, limits: S3Limits) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        connect_timeout=limits.connect_s,
        read_timeout=limits.read_s,
        max_pool_connections=limits.connections,
        retries={"total_max_attempts": 1},  # what may be repeated, and how often, is decided in s3_bucket.py
        request_checksum_calculation="when_required",  # we send our own, as a header
        response_checksum_validation="when_required",  # a range has none
        s3={
            # Servers other than Amazon's rarely have a host name for each bucket.
            "addressing_style": "path" if address.endpoint else "auto",
            "payload_signing_enabled": not address.is_private,
        },
    )


def _listed(key: str, listed: ObjectTypeDef) -> StoredObject:
    return StoredObject(key, listed["Size"], listed["ETag"], _ms(listed["LastModified"]))


def _is_key(key: str) -> bool:
    """Say whether a door would let the key in; others, and the markers of folders, are not Spool's."""
    try:
        check_key(key)
    except ValueError:
        return False
    return True


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
