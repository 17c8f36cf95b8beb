"""Objects are encrypted, classed and tagged as the address says: real servers, and one that forgets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from aiobotocore.session import get_session

from shared.kernel.errors import NotFound, Refused
from shared.storage.port import UnfinishedUpload, WriteOptions
from shared.storage.s3 import S3Storage
from tests.integration.s3_gate import Doorman
from tests.s3_servers import MINIO, VERSITYGW, empty_prefix

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

SMALL, IN_PARTS = b"a picture", Random(7).randbytes(9 << 20)
CONTENTS = [pytest.param(SMALL, id="in one request"), pytest.param(IN_PARTS, id="in parts")]
_ENCRYPTED = re.compile(rb"x-amz-server-side-encryption(?=:)", re.IGNORECASE)


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[tuple[S3Client, str, str]]:
    """Open the same store without Spool: a client, the bucket, and what keys start with."""
    parts = urlsplit(url)
    [endpoint] = parse_qs(parts.query)["endpoint"]
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        yield client, parts.netloc, f"{parts.path.strip('/')}/"


async def store(url: str, content: bytes) -> None:
    storage = await S3Storage.open(url, journal=None)
    try:
        async with storage.writer("clip.mp4", WriteOptions(metadata={"camera": "gate"})) as writer:
            await writer.write(content)
    finally:
        await storage.close()


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_object_is_kept_as_the_address_says(s3_url: str, content: bytes) -> None:
    await store(f"{s3_url}&encryption=AES256&storage_class=STANDARD_IA&tags=team=video,stage=a b", content)

    async with raw_client(s3_url) as (client, bucket, prefix):
        head = await client.head_object(Bucket=bucket, Key=f"{prefix}clip.mp4")
        tagged = await client.get_object_tagging(Bucket=bucket, Key=f"{prefix}clip.mp4")
    assert (head["ServerSideEncryption"], head["StorageClass"]) == ("AES256", "STANDARD_IA")
    assert {tag["Key"]: tag["Value"] for tag in tagged["TagSet"]} == {"team": "video", "stage": "a b"}
    assert head["Metadata"]["camera"] == "gate"
    assert head["ContentLength"] == len(content)


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_object_is_encrypted_with_the_key_that_the_address_names(
    aws_url: str, content: bytes
) -> None:
    [endpoint] = parse_qs(urlsplit(aws_url).query)["endpoint"]
    url = f"s3://kept-{uuid4().hex}/media?endpoint={endpoint}"
    async with raw_client(url) as (client, bucket, prefix):
        await client.create_bucket(Bucket=bucket)
        await store(f"{url}&encryption=aws:kms&kms_key=alias/media", content)
        head = await client.head_object(Bucket=bucket, Key=f"{prefix}clip.mp4")

    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/media")


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    ("server", "option", "said"),
    [
        pytest.param(VERSITYGW, "encryption=AES256", r"did not encrypt clip\.mp4", id="passed over"),
        pytest.param(MINIO, "encryption=AES256", r"NotImplemented for clip\.mp4", id="no keys"),
        pytest.param(
            MINIO, "storage_class=STANDARD_IA", r"InvalidStorageClass for clip\.mp4", id="no classes"
        ),
    ],
)
async def test_what_a_server_cannot_keep_is_refused_and_nothing_stays(
    server: str, option: str, said: str, content: bytes
) -> None:
    url = empty_prefix(server)
    with pytest.raises(Refused, match=said) as refusal:
        await store(f"{url}&{option}", content)

    assert "SPOOL_STORAGE" in (refusal.value.hint or "")
    assert await all_of(url) == ([], [])


@pytest.mark.parametrize("content", CONTENTS)
async def test_a_class_that_a_server_passes_over_loses_no_clip(content: bytes) -> None:
    """It only costs what it costs there; `spool storage check` tells."""
    url = empty_prefix(VERSITYGW)
    await store(f"{url}&storage_class=STANDARD_IA&tags=team=video", content)

    async with raw_client(url) as (client, bucket, prefix):
        head = await client.head_object(Bucket=bucket, Key=f"{prefix}clip.mp4")
    assert (head["ContentLength"], head.get("StorageClass", "STANDARD")) == (len(content), "STANDARD")


async def all_of(url: str) -> tuple[list[str], list[UnfinishedUpload]]:
    """Return what is below an address: objects, and unfinished uploads of the clip."""
    storage = await S3Storage.open(url, journal=None)
    try:
        # Asked for by the exact key: MinIO tells of no others.
        return [stored.key async for stored in storage.walk()], await storage.unfinished("clip.mp4")
    finally:
        await storage.close()


@pytest.mark.parametrize("content", CONTENTS)
async def test_a_store_that_forgets_to_encrypt_is_refused_and_keeps_nothing(
    s3_url: str, content: bytes
) -> None:
    [endpoint] = parse_qs(urlsplit(s3_url).query)["endpoint"]
    async with Doorman(change=forgotten).stand_before(endpoint) as forgetting:
        with pytest.raises(Refused, match=r"did not encrypt clip\.mp4") as refusal:
            await store(f"{s3_url.replace(endpoint, forgetting)}&encryption=AES256", content)

    storage = await S3Storage.open(s3_url, journal=None)
    with pytest.raises(NotFound):
        await storage.head("clip.mp4")
    await storage.close()
    assert "SPOOL_STORAGE" in (refusal.value.hint or "")


def forgotten(chunk: bytes) -> bytes:
    """Leave out of an answer that anything is encrypted."""
    return _ENCRYPTED.sub(b"x-passed-over", chunk) if chunk.startswith(b"HTTP/1.1") else chunk
