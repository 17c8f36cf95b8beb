"""How a stream of unknown length is cut into the parts of a multipart upload. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

MIB = 1 << 20
MAX_PARTS = 10_000  # S3's own limit
PART_BYTES = 8 * MIB  # the first parts; S3 refuses fewer than 5 MiB except as the last
COPIED_PART_BYTES = 64 * MIB  # what a store copies in one request: some seconds of its time
# Then parts double, and again after each further thousand, so that 10 000 of them reach S3's 5 TiB.
_FIRST_PARTS, _PARTS_PER_SIZE = 1500, 1000
_IN_FLIGHT_BYTES = 32 * MIB  # what may be on its way beside the part that is being filled


def part_bytes(number: int) -> int:
    """Return how large part `number`, counted from 1, is.

    An object of up to 11 GiB is written in parts of 8 MiB, one of up to 27 GiB in parts of up to 16 MiB.
    """
    return PART_BYTES << max(0, number - 1 - _FIRST_PARTS + _PARTS_PER_SIZE) // _PARTS_PER_SIZE


def copied_ranges(start: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    """Cut the range [start, end) into parts for the store to copy, of about the same length.

    `number` is that of the first part. Of a range of at least 5 MiB no part is shorter, and none longer than
    5 GiB: what is copied costs no memory, so its parts are larger from the beginning.
    """
    count = -(-(end - start) // max(COPIED_PART_BYTES, part_bytes(number)))
    return pairwise(start + (end - start) * index // count for index in range(count + 1))


def parts_in_flight(number: int) -> int:
    """Return how many parts may be on their way once part `number` is: two, or one when they are large."""
    return 2 if 2 * part_bytes(number) <= _IN_FLIGHT_BYTES else 1
