"""Parts grow so that 10 000 of them hold S3's largest object, and memory grows with its logarithm only."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shared.storage.s3_parts import MAX_PARTS, MIB, copied_ranges, part_bytes, parts_in_flight

GIB = 1024 * MIB
TIB = 1024 * GIB


def test_the_parts_reach_the_largest_object() -> None:
    assert sum(map(part_bytes, range(1, MAX_PARTS + 1))) >= 5 * TIB


@pytest.mark.parametrize("number", [1, 2, 1500, 1501, 5000, MAX_PARTS])
def test_a_part_is_as_large_as_s3_allows(number: int) -> None:
    assert 5 * MIB <= part_bytes(number) <= 5 * GIB


def test_ten_gibibytes_take_no_more_memory_than_a_hundred_mebibytes() -> None:
    parts = range(1, 10 * GIB // part_bytes(1) + 1)

    assert {part_bytes(number) for number in parts} == {8 * MIB}


@pytest.mark.parametrize("number", [1, 1500, 1501, 2500])
def test_a_usual_object_takes_little_memory(number: int) -> None:
    filling, in_flight = part_bytes(number), parts_in_flight(number) * part_bytes(number)

    assert filling + in_flight <= 48 * MIB


def test_a_part_is_always_on_its_way() -> None:
    assert {parts_in_flight(number) for number in range(1, MAX_PARTS + 1)} == {1, 2}


@pytest.mark.parametrize("number", [1, 4000, 9999])
@pytest.mark.parametrize("size_bytes", [5 * MIB, 64 * MIB, 64 * MIB + 1, 700 * MIB, 60 * GIB + 7])
def test_what_is_copied_is_cut_into_parts_that_s3_allows(number: int, size_bytes: int) -> None:
    ranges = list(copied_ranges(1000, 1000 + size_bytes, number))

    assert (ranges[0][0], ranges[-1][1]) == (1000, 1000 + size_bytes)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    assert all(5 * MIB <= end - start <= 5 * GIB for start, end in ranges)


def test_an_object_of_five_tebibytes_is_copied_into_fewer_parts_than_s3_allows() -> None:
    number, left_bytes = 1, 5 * TIB
    while left_bytes:
        size_bytes = min(left_bytes, 5 * TIB // 64)
        number += len(list(copied_ranges(0, size_bytes, number)))
        left_bytes -= size_bytes

    assert number - 1 <= MAX_PARTS
