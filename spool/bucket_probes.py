"""What a server of S3's language really does: acts that try one thing each, below a prefix of their own."""

from __future__ import annotations

import io
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import aiohttp

from shared.kernel.errors import Conflict, NotFound, Refused, Unavailable
from shared.storage import crc32
from shared.storage.port import COPIED_BYTES, UnfinishedUpload, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_bucket import Bucket, Copying, whole_crc32
from shared.storage.s3_errors import S3_FAILURES
from shared.storage.s3_keeping import Encryption, Keeping, StorageClass

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import PutObjectRequestTypeDef

SMALL = b"0123456789"
LARGE = bytes(range(256)) * ((9 << 20) // 256)  # in two parts
ODD_NAMES = ("a b", "a+b", "ü", "a%2Fb", "a=b&c?d#e", "(1)~'!*")
_LINK_S = 60


class Answer(StrEnum):
    """What came of a probe."""

    YES = "yes"
    NO = "no"  # the server says so, or something else came back than was stored
    PASSED_OVER = "passed over"  # it took the request, and did not do what it asked


@dataclass(frozen=True, slots=True)
class Ground:
    """Where to try it: keys below `prefix` belong to nobody else."""

    storage: S3Storage
    prefix: str

    @property
    def bucket(self) -> Bucket:
        return self.storage.bucket

    async def put(self, name: str, content: bytes, *, if_absent: bool = False) -> str:
        """Store an object as Spool does it, and return its key."""
        key = self.prefix + name
        async with self.storage.writer(key, WriteOptions(if_absent=if_absent)) as writer:
            await writer.write(content)
        return key

    async def fetch(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        async with self.storage.read(key, start=start, end=end) as chunks:
            return b"".join([chunk async for chunk in chunks])


def _yes_if(holds: object) -> Answer:
    return Answer.YES if holds else Answer.NO


async def stores(ground: Ground) -> Answer:
    return _yes_if(await ground.fetch(await ground.put("small", SMALL)) == SMALL)


async def stores_in_parts(ground: Ground) -> Answer:
    return _yes_if(await ground.fetch(await ground.put("large", LARGE)) == LARGE)


async def reads_ranges(ground: Ground) -> Answer:
    key = await ground.put("range", SMALL)
    return _yes_if(await ground.fetch(key, start=2, end=5) == SMALL[2:5])


async def removes(ground: Ground) -> Answer:
    key = await ground.put("gone", SMALL)
    await ground.storage.delete(key)
    try:
        await ground.storage.head(key)
    except NotFound:
        return Answer.YES
    return Answer.PASSED_OVER


async def lists_uploads(ground: Ground) -> Answer:
    upload = await _begin_upload(ground, "begun")
    return _yes_if(upload in [found.upload_id for found in await ground.storage.unfinished(ground.prefix)])


async def aborts_uploads(ground: Ground) -> Answer:
    upload_id = await _begin_upload(ground, "aborted")
    await ground.storage.abort(UnfinishedUpload(f"{ground.prefix}aborted", upload_id, started_ms=0))
    left = [found.upload_id for found in await ground.storage.unfinished(ground.prefix)]
    return Answer.PASSED_OVER if upload_id in left else Answer.YES


async def _begin_upload(ground: Ground, name: str) -> str:
    created = await ground.bucket.create_upload(ground.prefix + name, metadata={}, options=WriteOptions())
    return created.upload_id


async def writes_once(ground: Ground) -> Answer:
    await ground.put("once", SMALL)
    return await _conflicts(ground.put("once", SMALL[::-1], if_absent=True))


async def writes_once_in_parts(ground: Ground) -> Answer:
    await ground.put("once-large", SMALL)
    return await _conflicts(ground.put("once-large", LARGE, if_absent=True))


async def pins_reads(ground: Ground) -> Answer:
    key = await ground.put("pinned", SMALL)
    return await _conflicts(ground.bucket.get(key, None, '"00000000000000000000000000000000"'))


async def _conflicts(request: Awaitable[object]) -> Answer:
    try:
        await request
    except Conflict:
        return Answer.YES
    return Answer.PASSED_OVER


async def compares_checksums(ground: Ground) -> Answer:
    wrong = crc32.encoded(zlib.crc32(SMALL) ^ 1)
    try:
        await ground.bucket.put(
            f"{ground.prefix}wrong", io.BytesIO(SMALL), checksum=wrong, metadata={}, options=WriteOptions()
        )
    except (Refused, Unavailable):
        return Answer.YES
    return Answer.PASSED_OVER


async def keeps_checksums(ground: Ground) -> Answer:
    key = await ground.put("summed", LARGE)
    told = whole_crc32(await ground.bucket.head(key))
    return _yes_if(told == crc32.in_hex(zlib.crc32(LARGE)))


async def copies_ranges(ground: Ground) -> Answer:
    source = await ground.storage.head(await ground.put("source", LARGE))
    async with ground.storage.writer(f"{ground.prefix}copy", WriteOptions()) as writer:
        copied_bytes = await writer.copy(source, 1, COPIED_BYTES + 1)
    if not copied_bytes:
        return Answer.NO
    copied = await ground.fetch(f"{ground.prefix}copy")
    return _yes_if(copied == LARGE[1 : COPIED_BYTES + 1])


async def sums_copies(ground: Ground) -> Answer:
    return _yes_if(ground.bucket.copying is Copying.CHECKED)  # as the probe before this one found it


async def keeps_odd_names(ground: Ground) -> Answer:
    keys = {await ground.put(f"odd/{name}", name.encode()): name.encode() for name in ODD_NAMES}
    listed = {stored.key async for stored in ground.storage.walk(f"{ground.prefix}odd/")}
    return _yes_if(
        listed == keys.keys() and all([await ground.fetch(key) == content for key, content in keys.items()])
    )


async def lists_in_order(ground: Ground) -> Answer:
    keys = [await ground.put(f"order/{name}", SMALL) for name in ("a-b", "a/b", "a0")]
    listed = [stored.key async for stored in ground.storage.walk(f"{ground.prefix}order/")]
    return _yes_if(listed == keys)


async def opens_links(ground: Ground) -> Answer:
    link = await ground.storage.presign(await ground.put("linked", SMALL), expires_s=_LINK_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LINK_S)) as session,
            session.get(link, headers={"Range": "bytes=2-4"}) as answer,
        ):
            return _yes_if(answer.status == 206 and await answer.read() == SMALL[2:5])
    except S3_FAILURES as error:
        raise Unavailable(f"the link is not answered: {type(error).__name__}") from error


def encrypts(encryption: Encryption) -> Callable[[Ground], Awaitable[Answer]]:
    async def act(ground: Ground) -> Answer:
        keeping = Keeping(encryption=encryption, kms_key=ground.bucket.keeping.kms_key)
        head = await ground.bucket.head(await _put_kept(ground, encryption.replace(":", "-"), keeping))
        return Answer.YES if keeping.is_obeyed(head) else Answer.PASSED_OVER

    return act


async def has_classes(ground: Ground) -> Answer:
    cheaper: StorageClass = "STANDARD_IA"
    head = await ground.bucket.head(await _put_kept(ground, "class", Keeping(storage_class=cheaper)))
    return Answer.YES if head.get("StorageClass") == cheaper else Answer.PASSED_OVER


async def keeps_tags(ground: Ground) -> Answer:
    bucket, keeping = ground.bucket, Keeping(tags=(("kept by", "spool"),))
    key = await _put_kept(ground, "tagged", keeping)
    told = await bucket.repeated(
        key, lambda: bucket.client.get_object_tagging(Bucket=bucket.name, Key=bucket.prefix + key)
    )
    tags = tuple((tag["Key"], tag["Value"]) for tag in told["TagSet"])
    return Answer.YES if tags == keeping.tags else Answer.PASSED_OVER


async def _put_kept(ground: Ground, name: str, keeping: Keeping) -> str:
    bucket, key = ground.bucket, f"{ground.prefix}{name}"
    wanted: PutObjectRequestTypeDef = {"Bucket": bucket.name, "Key": bucket.prefix + key, "Body": SMALL}
    keeping.add_to(wanted)
    await bucket.repeated(key, lambda: bucket.client.put_object(**wanted))
    return key
