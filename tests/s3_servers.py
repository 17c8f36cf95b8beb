"""The S3 servers to test against, by the variables that tell their addresses."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

SEAWEEDFS, VERSITYGW, MINIO = "seaweedfs", "versitygw", "minio"
VARIABLES = {
    SEAWEEDFS: "SPOOL_TEST_S3",
    VERSITYGW: "SPOOL_TEST_S3_VERSITYGW",
    MINIO: "SPOOL_TEST_S3_MINIO",
}


def address_of(variable: str) -> str:
    """Return the address that a variable tells; without one the test is skipped."""
    address = os.environ.get(variable, "")
    if not address:
        pytest.skip(f"{variable} is not set: no server to test against")
    return address


def empty_prefix(server: str) -> str:
    """Return the address of an empty prefix in a bucket of a server, which only this test sees."""
    bucket = urlsplit(address_of(VARIABLES[server]))
    return bucket._replace(path=f"/{uuid4().hex}").geturl()
