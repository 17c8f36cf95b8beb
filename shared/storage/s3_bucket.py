"""The requests that Spool sends to one bucket: bounded, repeated where that is safe, errors told as ours."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeVar

import stamina

from shared.kernel.errors import NotFound, Refused, Unavailable
from shared.storage import crc32
from shared.storage.port import StoredObject, WriteOptions
from shared.storage.s3_address import S3Address
from shared.storage.s3_errors import S3_FAILURES, NotLetIn, UploadGone, code_of, told_s3, was_heard
from shared.storage.s3_limits import S3Limits

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        CompleteMultipartUploadRequestTypeDef,
        CreateMultipartUploadRequestTypeDef,
        DeleteObjectRequestTypeDef,
        GetObjectOutputTypeDef,
        GetObjectRequestTypeDef,
        HeadObjectOutputTypeDef,
        ListPartsRequestTypeDef,
        PutObjectRequestTypeDef,
    )

T = TypeVar("T")

# The checksum of all bytes, and not of the checksums of the parts.
_WHOLE: Literal["FULL_OBJECT"] = "FULL_OBJECT"
_ABORTS = 3  # a part that was on its way when the upload was aborted may still arrive and lie there


@dataclass(frozen=True, slots=True)
class CreatedUpload:
    """A multipart upload, and what checks it at its end."""

    upload_id: str
    has_checksums: bool  # each part's is repeated at the end
    has_whole: bool  # that of all bytes is told at the end, and the server compares


class Copying(Enum):
    """What a server can do with `UploadPartCopy`."""

    CHECKED = "it copies, and tells the checksum of what it copied"
    UNCHECKED = "it copies, as far as there are no checksums"
    IMPOSSIBLE = "it does not copy"


class Bucket:
    """A bucket and the prefix below which a store lives. Keys are those of the port."""

    def __init__(self, client: S3Client, address: S3Address, limits: S3Limits) -> None:
        """Take a client that is open and does not repeat requests by itself."""
        self.client = client
        self.name = address.bucket
        self.prefix = address.prefix
        self.limits = limits
        self.keeping = address.keeping
        self.copying = Copying.CHECKED  # what writers still try

    async def head(self, key: str) -> HeadObjectOutputTypeDef:
        """Describe an object. Raises NotFound."""
        return await self.repeated(key, lambda: self._head(key))

    async def get(self, key: str, byte_range: str | None, if_match: str | None) -> GetObjectOutputTypeDef:
        """Begin to receive an object; `byte_range` is a Range header. Raises NotFound, Conflict, Refused."""
        wanted: GetObjectRequestTypeDef = {"Bucket": self.name, "Key": self.prefix + key}
        if byte_range is not None:
            wanted["Range"] = byte_range
        if if_match is not None:
            wanted["IfMatch"] = if_match
        return await self.repeated(key, lambda: self.client.get_object(**wanted))

    async def put(
        self, key: str, body: io.BytesIO, *, checksum: str, metadata: dict[str, str], options: WriteOptions
    ) -> None:
        """Store a small object in one request. Raises Conflict, NotFound."""
        wanted: PutObjectRequestTypeDef = {
            "Bucket": self.name,
            "Key": self.prefix + key,
            "ContentType": options.content_type,
            "Metadata": metadata,
            "ChecksumCRC32": checksum,
            "Body": body,
        }
        self.keeping.add_to(wanted)
        if options.if_absent:
            wanted["IfNoneMatch"] = "*"
        if options.if_match is not None:
            wanted["IfMatch"] = options.if_match

        def request() -> Awaitable[object]:
            body.seek(0)
            return self.client.put_object(**wanted)

        await self.repeated(key, request)

    async def create_upload(
        self, key: str, *, metadata: dict[str, str], options: WriteOptions, checked: bool = True
    ) -> CreatedUpload:
        """Create a multipart upload, `checked` by the CRC32 of parts and, where the server can, of all."""
        wanted: CreateMultipartUploadRequestTypeDef = {
            "Bucket": self.name,
            "Key": self.prefix + key,
            "ContentType": options.content_type,
            "Metadata": metadata,
        }
        self.keeping.add_to(wanted)
        if checked:
            wanted["ChecksumAlgorithm"] = (
                "CRC32"  # at Create already: versitygw refuses it at Complete otherwise
            )
            wanted["ChecksumType"] = _WHOLE
        # Sent again only after an answer that it failed: behind a lost answer may be an upload.
        answer = await self.repeated(
            key,
            lambda: self.client.create_multipart_upload(**wanted),
            when=lambda error: is_passing(error) and was_heard(error),
        )
        has_whole = checked and answer.get("ChecksumType") == _WHOLE
        return CreatedUpload(answer["UploadId"], has_checksums=checked, has_whole=has_whole)

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: io.BytesIO, checksum: str
    ) -> CompletedPartTypeDef:
        """Send one part. Raises Unavailable when the upload was aborted by somebody."""
        answer = await self.repeated(
            key,
            lambda: self.client.upload_part(
                Bucket=self.name,
                Key=self.prefix + key,
                UploadId=upload_id,
                PartNumber=number,
                Body=_rewound(body),
                ChecksumCRC32=checksum,
            ),
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": checksum}

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: StoredObject, byte_range: str
    ) -> CompletedPartTypeDef:
        """Let the store copy a range of another object into one part; `byte_range` is a Range header.

        Raises Refused when it cannot, Conflict when the source has another ETag, NotFound, and Unavailable
        also when the upload was aborted by somebody.
        """
        try:
            answer = await self.repeated(
                source.key,
                lambda: self.client.upload_part_copy(
                    Bucket=self.name,
                    Key=self.prefix + key,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource={"Bucket": self.name, "Key": self.prefix + source.key},
                    CopySourceRange=byte_range,
                    CopySourceIfMatch=source.etag,
                ),
            )
        except UploadGone as error:
            raise UploadGone(f"the upload of {key} was aborted by the sweeper or by a later claim") from error
        copied = answer.get("CopyPartResult", {})
        if "ETag" not in copied:  # what does not know the header has stored an empty part
            raise Refused(f"the store does not say that it copied {source.key}")
        part: CompletedPartTypeDef = {"PartNumber": number, "ETag": copied["ETag"]}
        if "ChecksumCRC32" in copied:
            part["ChecksumCRC32"] = copied["ChecksumCRC32"]
        return part

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[CompletedPartTypeDef],
        options: WriteOptions,
        *,
        checksum: str | None,
    ) -> None:
        """Make the parts one object; `checksum` is the CRC32 of all its bytes, where the server compares it.

        Raises Conflict, NotFound; Unavailable also when it may have worked.
        """
        wanted: CompleteMultipartUploadRequestTypeDef = {
            "Bucket": self.name,
            "Key": self.prefix + key,
            "UploadId": upload_id,
            "MultipartUpload": {"Parts": parts},
        }
        if checksum is not None:
            wanted["ChecksumCRC32"] = checksum
            wanted["ChecksumType"] = _WHOLE
        if options.if_absent:
            wanted["IfNoneMatch"] = "*"
        if options.if_match is not None:
            wanted["IfMatch"] = options.if_match
        try:
            await self.repeated(key, lambda: self.client.complete_multipart_upload(**wanted))
        except Refused as error:
            # What versitygw says of an upload that was aborted while a part of it was on its way.
            if code_of(error.__cause__) == "InvalidRequest":
                raise UploadGone(f"the upload of {key} can no longer be completed") from error
            raise

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Discard a multipart upload with all its parts. One that is gone is fine."""
        at: ListPartsRequestTypeDef = {"Bucket": self.name, "Key": self.prefix + key, "UploadId": upload_id}
        for _ in range(_ABORTS):
            try:
                await self.repeated(
                    key,
                    lambda: self.client.abort_multipart_upload(
                        Bucket=at["Bucket"], Key=at["Key"], UploadId=upload_id
                    ),
                )
                left = await self.repeated(key, lambda: self.client.list_parts(**at))
            except (NotFound, UploadGone):
                return
            if not left.get("Parts"):
                return
        raise Unavailable(f"parts of {key} stay although their upload was aborted")

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        """Remove an object. One that is not there is fine."""
        at: DeleteObjectRequestTypeDef = {"Bucket": self.name, "Key": self.prefix + key}
        if if_match is not None:
            at["IfMatch"] = if_match
        try:
            await self.repeated(key, lambda: self.client.delete_object(**at))
        except NotFound:
            return

    async def once(self, subject: str, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request a single time."""
        try:
            async with asyncio.timeout(self.limits.request_s):
                return await request()
        except S3_FAILURES as error:
            raise told_s3(subject, error) from error

    async def repeated(
        self,
        subject: str,
        request: Callable[[], Awaitable[T]],
        *,
        when: Callable[[Exception], bool] | None = None,
    ) -> T:
        """Send a request, again while the store stays away. Raises Unavailable after the last attempt."""
        patience = stamina.retry_context(
            on=when or is_passing,
            attempts=self.limits.attempts,
            timeout=None,  # each attempt has limits of its own, and the attempts are counted
            wait_initial=self.limits.wait_s,
            wait_max=self.limits.wait_max_s,
            wait_jitter=self.limits.wait_s,
        )
        async for attempt in patience:
            with attempt:
                return await self.once(subject, request)
        raise AssertionError("the last attempt returns or raises")

    async def _head(self, key: str) -> HeadObjectOutputTypeDef:
        return await self.client.head_object(Bucket=self.name, Key=self.prefix + key, ChecksumMode="ENABLED")


def is_passing(error: Exception) -> bool:
    """Say whether the same request may succeed soon."""
    return isinstance(error, Unavailable) and not isinstance(error, NotLetIn | UploadGone)


def whole_crc32(head: HeadObjectOutputTypeDef) -> str | None:
    """Return the CRC32 of all bytes of an object in hex, where its store knows it."""
    if head.get("ChecksumType", _WHOLE) != _WHOLE:
        return None
    return crc32.in_hex(crc32.decoded(head.get("ChecksumCRC32")))


def _rewound(body: io.BytesIO) -> io.BytesIO:
    body.seek(0)
    return body
