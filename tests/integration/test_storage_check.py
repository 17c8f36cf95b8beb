"""`spool storage check` tries a bucket out: real servers, and one that only says that it removes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from aiobotocore.session import get_session

from shared.storage.s3 import S3Storage
from shared.storage.s3_limits import S3Limits
from spool.bucket_check import PROBES, check_bucket
from spool.bucket_probes import Answer
from spool.cli.app import run_command
from tests.integration.s3_gate import Doorman
from tests.s3_servers import MINIO, SEAWEEDFS, VERSITYGW, empty_prefix

QUICK = S3Limits(attempts=2, wait_s=0.01, wait_max_s=0.05)
GONE = b"HTTP/1.1 204 No Content\r\n\r\n"
ORDER, LISTED = "lists are in the order of the keys", "unfinished uploads are listed"
COPIED, COLD = "copies have a checksum", "storage_class=STANDARD_IA"
AES, KMS = "encryption=AES256", "encryption=aws:kms"


async def answers(url: str) -> dict[str, Answer]:
    storage = await S3Storage.open(url, journal=None, limits=QUICK)
    try:
        return {finding.name: finding.answer for finding in await check_bucket(storage)}
    finally:
        await storage.close()


@pytest.mark.parametrize(
    ("server", "lacking"),
    [
        # It walks by directories, and has no server of keys here.
        pytest.param(SEAWEEDFS, {ORDER: Answer.NO, KMS: Answer.NO}, id=SEAWEEDFS),
        pytest.param(
            VERSITYGW,
            {COPIED: Answer.NO, AES: Answer.PASSED_OVER, KMS: Answer.PASSED_OVER, COLD: Answer.PASSED_OVER},
            id=VERSITYGW,
        ),
        pytest.param(
            MINIO,
            {LISTED: Answer.NO, COPIED: Answer.NO, AES: Answer.NO, KMS: Answer.NO, COLD: Answer.NO},
            id=MINIO,
        ),
    ],
)
async def test_what_a_server_does_not_promise_is_found_out(server: str, lacking: dict[str, Answer]) -> None:
    found = await answers(empty_prefix(server))

    assert len(found) == len(PROBES)
    assert {name: answer for name, answer in found.items() if answer is not Answer.YES} == lacking


async def test_nothing_is_left_behind(s3_url: str) -> None:
    await answers(s3_url)

    storage = await S3Storage.open(s3_url, journal=None)
    left = [stored.key async for stored in storage.walk()]
    unfinished = await storage.unfinished()
    await storage.close()
    assert (left, unfinished) == ([], [])


async def test_the_key_that_the_address_names_is_tried(aws_url: str) -> None:
    [endpoint] = parse_qs(urlsplit(aws_url).query)["endpoint"]
    bucket = f"checked-{uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=bucket)

    found = await answers(f"s3://{bucket}?endpoint={endpoint}&encryption=aws:kms&kms_key=alias/media")

    assert (found[KMS], found[ORDER]) == (Answer.YES, Answer.YES)


def test_the_command_shows_what_follows_and_a_script_is_told(
    s3_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_code = run_command(["storage", "check", s3_url])
    shown = capsys.readouterr().out
    told_code = run_command(["storage", "check", s3_url, "--json"])
    told = json.loads(capsys.readouterr().out)

    assert (shown_code, told_code) == (0, 0)
    assert "a walk that goes on may leave some out" in shown
    assert [finding["name"] for finding in told] == [probe.name for probe in PROBES]
    assert {finding["answer"] for finding in told if finding["needed"]} == {"yes"}


def test_a_directory_has_nothing_to_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["storage", "check", tmp_path.as_uri()]) != 0
    assert "only a bucket" in capsys.readouterr().err


def only_said(chunk: bytes) -> bytes | None:
    """Say that an object was removed, and leave it."""
    return GONE if chunk.startswith(b"DELETE ") and b"uploadId=" not in chunk else None


async def test_a_server_without_what_spool_needs_fails_the_check(s3_url: str) -> None:
    [endpoint] = parse_qs(urlsplit(s3_url).query)["endpoint"]
    async with Doorman(answer=only_said).stand_before(endpoint) as saying:
        checking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "spool", "storage", "check", s3_url.replace(endpoint, saying)),
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await checking.communicate()

    assert checking.returncode == 1
    assert "what is deleted stays, and is paid for" in shown.decode()
