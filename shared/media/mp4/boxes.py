"""Read and write ISO base media boxes. Whatever is read is untrusted, so every length is checked first.

Nothing here recurses by what it reads, and nothing is allocated by a size that a file merely declares.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.kernel.errors import Corrupt

Ints: TypeAlias = NDArray[np.int64]

HEADER_BYTES = 8
LARGE_HEADER_BYTES = 16  # with a 64-bit size; no header is longer
# Of one table, and so of samples in a track, each of which takes some 24 bytes of memory.
# A day at 30 frames a second, or of AAC at 48 kHz, has fewer.
MAX_ROWS = 4_200_000
FULL_BYTES = 4  # version and flags


class Malformed(Corrupt):
    """Bytes are not the boxes they claim to be."""


@dataclass(frozen=True, slots=True)
class Header:
    """The start of a box. `size_bytes` counts the header too; None: it reaches to the end of the file."""

    kind: bytes
    header_bytes: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Box:
    """A box whose whole payload is at hand."""

    kind: bytes
    payload: memoryview


def read_header(data: memoryview, at: int = 0) -> Header | None:
    """Read the header at `at`; None when its bytes are not all there. Raises Malformed."""
    if len(data) - at < HEADER_BYTES:
        return None
    declared, kind = struct.unpack_from(">I4s", data, at)
    if declared == 0:
        return Header(kind, HEADER_BYTES, None)
    if declared != 1:
        return _checked(Header(kind, HEADER_BYTES, declared))
    if len(data) - at < LARGE_HEADER_BYTES:
        return None
    (large,) = struct.unpack_from(">Q", data, at + HEADER_BYTES)
    return _checked(Header(kind, LARGE_HEADER_BYTES, large))


def _checked(header: Header) -> Header:
    # A size below the header's own would make a reader walk backwards or stand still.
    if header.size_bytes is not None and header.size_bytes < header.header_bytes:
        raise Malformed(f"the box {name(header.kind)} says it is {header.size_bytes} bytes long")
    return header


def name(kind: bytes) -> str:
    """Return a box type fit for a message."""
    return repr(kind.decode("latin-1"))


def walk(data: memoryview) -> Iterator[Box]:
    """Yield the boxes that fill `data`, in order. Raises Malformed when one reaches beyond its parent."""
    at = 0
    while (header := read_header(data, at)) is not None:
        size_bytes = len(data) - at if header.size_bytes is None else header.size_bytes
        if size_bytes > len(data) - at:
            raise Malformed(f"the box {name(header.kind)} reaches beyond the one that holds it")
        yield Box(header.kind, data[at + header.header_bytes : at + size_bytes])
        at += size_bytes


def children(data: memoryview) -> dict[bytes, memoryview]:
    """Return the payload of each child by its type; the first counts where there are several."""
    found: dict[bytes, memoryview] = {}
    for box in walk(data):
        found.setdefault(box.kind, box.payload)
    return found


def child(parent: dict[bytes, memoryview], kind: bytes) -> memoryview:
    """Return a child that must be there. Raises Malformed."""
    payload = parent.get(kind)
    if payload is None:
        raise Malformed(f"the box {name(kind)} is missing")
    return payload


def unpack(layout: str, data: memoryview, at: int = 0) -> tuple[int, ...]:
    """Read integers by a `struct` layout. Raises Malformed when the bytes are not there."""
    if at < 0 or at + struct.calcsize(layout) > len(data):
        raise Malformed("a box ends before its fields do")
    return struct.unpack_from(layout, data, at)


def take(data: memoryview, at: int, size_bytes: int) -> bytes:
    """Copy bytes out of a box. Raises Malformed when they are not there."""
    if at < 0 or size_bytes < 0 or at + size_bytes > len(data):
        raise Malformed("a box ends before its fields do")
    return bytes(data[at : at + size_bytes])


def read_rows(data: memoryview, at: int, count: int, columns: str) -> tuple[Ints, ...]:
    """Read `count` rows and return one array per column; `columns` are numpy codes such as `u4 i4`.

    Raises Malformed when the box is too short for as many rows as it declares.
    """
    row = np.dtype([(f"c{index}", f">{code}") for index, code in enumerate(columns.split())])
    room = min((len(data) - at) // row.itemsize, MAX_ROWS)
    if count > room:
        raise Malformed(f"a table declares {count} rows and has room for {room}")
    rows = np.frombuffer(data, row, count, at)
    return tuple(rows[field].astype(np.int64) for field in row.names or ())


def box(kind: bytes, *parts: bytes) -> bytes:
    """Write a box. Its payload is far below 4 GiB: only `mdat` is not, and that is written elsewhere."""
    payload = b"".join(parts)
    return struct.pack(">I4s", HEADER_BYTES + len(payload), kind) + payload


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """Write a box that starts with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def rows(*columns: tuple[Ints, str]) -> bytes:
    """Write the count of rows and then the rows, each column with its numpy code."""
    dtype = np.dtype([(f"c{index}", f">{code}") for index, (_, code) in enumerate(columns)])
    table = np.empty(len(columns[0][0]), dtype)
    for index, (values, _) in enumerate(columns):
        table[f"c{index}"] = values
    return struct.pack(">I", len(table)) + table.tobytes()
