"""What a dead writer left in a bucket becomes an object.

The parts are those of the journal, and behind them those that the store has and the journal does not: a
writer may have died between the two. What is written down is compared by nobody but the store, which refuses
to complete an upload with an ETag that is none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from shared.kernel.errors import Conflict, Corrupt, NotFound, Unavailable
from shared.storage import crc32
from shared.storage.port import UnfinishedUpload, UploadedPart, WriteOptions
from shared.storage.s3_bucket import Bucket, whole_crc32
from shared.storage.s3_errors import UploadGone

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        HeadObjectOutputTypeDef,
        ListPartsRequestTypeDef,
    )


async def complete_from_parts(
    bucket: Bucket, upload: UnfinishedUpload, journalled: Sequence[UploadedPart]
) -> bool:
    """Complete an upload of its parts; False when it has none.

    Raises NotFound when the upload has ended, Conflict, Corrupt, Unavailable.
    """
    parts = usable(journalled, await _listed(bucket, upload))
    if not parts:
        return False
    try:
        await bucket.complete_upload(
            upload.key,
            upload.upload_id,
            [_as_completed(part) for part in parts],
            WriteOptions(if_absent=True),
            checksum=None,
        )
    except (Conflict, NotFound, Unavailable):
        # An answer may have been lost, and the repetition refused. Then the object is there.
        if not await _stands(bucket, upload.key, parts):
            raise
        return True
    if not await _stands(bucket, upload.key, parts):
        raise Corrupt(f"{upload.key} is not what its {len(parts)} parts are")
    return True


def usable(journalled: Sequence[UploadedPart], listed: Sequence[UploadedPart]) -> list[UploadedPart]:
    """Return the parts from the first on, up to one that is missing. Pure.

    Where parts have checksums, one without ends them: the store would not complete an upload with it.
    """
    known = {part.number: part for part in (*listed, *journalled)}
    checked = any(part.crc32 is not None for part in known.values())
    parts: list[UploadedPart] = []
    for number in count(1):
        part = known.get(number)
        if part is None or (checked and part.crc32 is None):
            return parts
        parts.append(part)
    raise AssertionError("numbers do not end")


async def _listed(bucket: Bucket, upload: UnfinishedUpload) -> list[UploadedPart]:
    """Ask the store for the parts. Raises NotFound when the upload has ended."""
    wanted: ListPartsRequestTypeDef = {
        "Bucket": bucket.name,
        "Key": bucket.prefix + upload.key,
        "UploadId": upload.upload_id,
    }
    found: list[UploadedPart] = []
    while True:
        try:
            page = await bucket.repeated(upload.key, lambda: bucket.client.list_parts(**wanted))
        except UploadGone as error:
            raise NotFound(f"the upload of {upload.key} has ended") from error
        for part in page.get("Parts", []):
            checksum = crc32.decoded(part.get("ChecksumCRC32"))
            found.append(UploadedPart(part["PartNumber"], part["Size"], part["ETag"], checksum))
        after = page.get("NextPartNumberMarker", 0)
        if not page.get("IsTruncated") or after <= wanted.get("PartNumberMarker", 0):
            return found
        wanted["PartNumberMarker"] = after


async def _stands(bucket: Bucket, key: str, parts: Sequence[UploadedPart]) -> bool:
    """Say whether the object at `key` is that of the parts, as far as the store tells."""
    try:
        head: HeadObjectOutputTypeDef = await bucket.head(key)
    except NotFound:
        return False
    known = [(part.crc32, part.size_bytes) for part in parts if part.crc32 is not None]
    ours = crc32.in_hex(crc32.combined(known)) if len(known) == len(parts) else None
    told = whole_crc32(head)
    is_as_long = head["ContentLength"] == sum(part.size_bytes for part in parts)
    return is_as_long and (ours is None or told is None or ours == told)


def _as_completed(part: UploadedPart) -> CompletedPartTypeDef:
    completed: CompletedPartTypeDef = {"PartNumber": part.number, "ETag": part.etag}
    if part.crc32 is not None:
        completed["ChecksumCRC32"] = crc32.encoded(part.crc32)
    return completed
