"""Parts grow so that 10 000 of them hold S3's largest object, and memory grows with its logarithm only."""

from __future__ import annotations

import pytest

from shared.storage.s3_parts import MAX_PARTS, MIB, part_bytes, parts_in_flight

GIB = 1024 * MIB
TIB = 1024 * GIB


def test_the_parts_reach_the_largest_object() -> None:
    assert sum(map(part_bytes, range(1, MAX_PARTS + 1))) >= 5 * TIB


@pytest.mark.parametrize("number", [1, 2, 1000, 1001, 5000, MAX_PARTS])
def test_a_part_is_as_large_as_s3_allows(number: int) -> None:
    assert 5 * MIB <= part_bytes(number) <= 5 * GIB


@pytest.mark.parametrize("number", [1, 1000, 1001, 2000])
def test_a_usual_object_takes_little_memory(number: int) -> None:
    filling, in_flight = part_bytes(number), parts_in_flight(number) * part_bytes(number)

    assert filling + in_flight <= 48 * MIB


def test_a_part_is_always_on_its_way() -> None:
    assert {parts_in_flight(number) for number in range(1, MAX_PARTS + 1)} == {1, 2}
