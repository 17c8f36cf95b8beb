"""Credentials are found where the AWS SDKs look: here by a profile that assumes a role, at a MiniStack."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from aiobotocore.session import get_session

from shared.storage.port import WriteOptions
from shared.storage.s3 import S3Storage
from tests.integration.s3_gate import Doorman

PROFILES = """
[profile recordings]
role_arn = arn:aws:iam::000000000000:role/recordings
source_profile = founder

[profile founder]
aws_access_key_id = founder
aws_secret_access_key = secret
"""


async def test_a_role_that_a_profile_assumes_is_used(
    aws_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [endpoint] = parse_qs(urlsplit(aws_url).query)["endpoint"]
    bucket = f"assumed-{uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=bucket)
    (tmp_path / "config").write_text(PROFILES)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "recordings")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
    heads: list[bytes] = []

    def listen(chunk: bytes) -> None:
        if b" HTTP/1.1\r\n" in chunk:
            heads.append(chunk.partition(b"\r\n\r\n")[0].lower())

    async with Doorman(answer=listen).stand_before(endpoint) as door:
        storage = await S3Storage.open(f"s3://{bucket}?endpoint={door}", journal=None)
        async with storage.writer("clip.mp4", WriteOptions()) as writer:
            await writer.write(b"a clip")
        await storage.close()

    assert heads
    assert all(b"x-amz-security-token:" in head for head in heads)
    assert not any(b"credential=founder/" in head for head in heads)
