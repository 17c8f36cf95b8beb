"""The CRC32 of a whole is that of its parts, joined."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.storage.crc32 import combined, decoded, encoded, in_hex

MIB = 1 << 20


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_parts_joined_have_the_crc32_of_the_whole(content: bytes, cuts: list[int]) -> None:
    parts = [content[start:end] for start, end in pairwise([0, *sorted(cuts), 300])]

    assert combined((zlib.crc32(part), len(part)) for part in parts) == zlib.crc32(content)


def test_large_parts_are_joined_as_well() -> None:
    first, second = bytes(5 * MIB), b"\xff" * (3 * MIB + 1)
    parts = [(zlib.crc32(part), len(part)) for part in (first, second)]

    assert combined(parts) == zlib.crc32(first + second)
    assert combined([]) == zlib.crc32(b"")


def test_what_s3_writes_is_read_back() -> None:
    crc32 = zlib.crc32(b"spool")

    assert decoded(encoded(crc32)) == crc32
    assert in_hex(crc32) == f"{crc32:08x}"


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(None, id="nothing"),
        pytest.param("kRNdpQ==-2", id="of the checksums of two parts"),
        pytest.param("kRNd", id="too short"),
        pytest.param("?", id="not base64"),
    ],
)
def test_what_is_no_crc32_of_a_whole_is_none(told: str | None) -> None:
    assert decoded(told) is None
    assert in_hex(decoded(told)) is None
