"""What a fragmented MP4 file says of where its fragments lie: `sidx` before them, or `mfra` at the end. Pure.

Neither is believed. They tell where reading may start; what is there is read from the fragments themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.media.mp4.boxes import (
    FULL_BYTES,
    HEADER_BYTES,
    Ints,
    Malformed,
    read_header,
    read_rows,
    unpack,
    walk,
)
from shared.media.mp4.tables import MAX_TICKS

MAX_ANCHORS = 1 << 18  # twelve hours at six fragments a second
MFRO_BYTES = 16
# Fragments nearer to each other than this are read as one: reading on is cheaper than another request.
STRETCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Bytes at which a fragment starts, ascending, and about when each is shown, in milliseconds of media."""

    offsets: Ints
    starts_ms: Ints

    def __len__(self) -> int:
        return len(self.offsets)

    def moved(self, start_ms: int) -> Anchors:
        """Return the same with the first at `start_ms`: some count from the recording's own start."""
        return Anchors(self.offsets, self.starts_ms - self.starts_ms[0] + start_ms)

    def thinned(self, *, first_at: int, first_ms: int | None, object_bytes: int) -> Anchors:
        """Return those that are of use: inside of the object, in order, and far enough from each other.

        The first is `first_at`, where the fragments start; `first_ms` is given when it is not as late as the
        first that is listed. Raises Malformed when times and places disagree.
        """
        inside = (self.offsets >= first_at) & (self.offsets < object_bytes)
        offsets, starts = self.offsets[inside], self.starts_ms[inside]
        order = np.argsort(offsets, kind="stable")
        offsets, starts = offsets[order], starts[order]
        if (np.diff(starts) < 0).any():
            raise Malformed("the fragments are listed in another order than they lie in")
        if first_ms is None:
            first_ms = int(starts[0]) if len(starts) else 0
        kept_at, kept_ms = [first_at], [first_ms]
        for offset, start_ms in zip(offsets.tolist(), starts.tolist(), strict=True):
            if offset - kept_at[-1] >= STRETCH_BYTES:
                kept_at.append(offset)
                kept_ms.append(start_ms)
        return Anchors(np.array(kept_at, np.int64), np.array(kept_ms, np.int64))


@dataclass(frozen=True, slots=True)
class Sidx:
    """One segment index: the bytes that it describes, divided."""

    anchors: Anchors
    nested: tuple[tuple[int, int], ...]  # [start, end) of further segment indexes, which describe their bytes
    end: int  # of the bytes described


def read_sidx(payload: memoryview, *, end_at: int) -> Sidx:
    """Read a `sidx` box that ends at byte `end_at` of the object. Raises Malformed."""
    version, _reference, timescale = unpack(">B3xII", payload)
    start_ticks, first_at = unpack(">QQ" if version else ">II", payload, 12)
    at = 28 if version else 20
    (count,) = unpack(">H", payload, at + 2)
    sizes, durations, _access = read_rows(payload, at + 4, count, "u4 u4 u4")
    if timescale == 0 or max(start_ticks, first_at) > MAX_TICKS:
        raise Malformed("the index of the fragments (sidx) is not valid")
    is_index = sizes >> 31 == 1
    sizes &= 0x7FFF_FFFF
    ends = end_at + first_at + np.cumsum(sizes)
    starts_ms = (start_ticks + np.cumsum(durations) - durations) // timescale * 1000
    starts_ms += (start_ticks + np.cumsum(durations) - durations) % timescale * 1000 // timescale
    offsets = ends - sizes
    nested = tuple(zip(offsets[is_index].tolist(), ends[is_index].tolist(), strict=True))
    anchors = Anchors(offsets[~is_index], starts_ms[~is_index])
    return Sidx(anchors, nested, int(ends[-1]) if count else end_at + first_at)


def mfra_bytes(mfro: memoryview) -> int:
    """Return the length of the `mfra` box that the last bytes of the file end, or 0 when they end none."""
    header = read_header(mfro)
    if header is None or header.kind != b"mfro" or header.size_bytes != MFRO_BYTES:
        return 0
    return unpack(">I", mfro, HEADER_BYTES + FULL_BYTES)[0]


def read_mfra(mfra: memoryview, timescales: dict[int, int]) -> Anchors | None:
    """Read the payload of an `mfra` box: the anchors of the first track in `timescales` that it has.

    `timescales` are ticks per second by the track's number. None when it has none. Raises Malformed.
    """
    tables: dict[int, memoryview] = {}
    for tfra in (box.payload for box in walk(mfra) if box.kind == b"tfra"):
        tables.setdefault(unpack(">I", tfra, FULL_BYTES)[0], tfra)
    for number, timescale in timescales.items():
        if number in tables:
            anchors = _read_tfra(tables[number], timescale)
            if len(anchors):
                return anchors
    return None


def _read_tfra(tfra: memoryview, timescale: int) -> Anchors:
    version, lengths, rows = unpack(">B7xII", tfra)
    if rows > MAX_ANCHORS:
        raise Malformed(f"the index of the fragments (mfra) declares {rows} of them")
    # Which track, run and sample of the fragment is meant: each number in one to four bytes.
    rest = sum((lengths >> shift & 3) + 1 for shift in (0, 2, 4))
    times = "u8 u8" if version else "u4 u4"
    ticks, offsets = read_rows(tfra, FULL_BYTES + 12, rows, f"{times} {'u1 ' * rest}")[:2]
    if (ticks < 0).any() or (ticks > MAX_TICKS).any():
        raise Malformed("the index of the fragments (mfra) is not valid")
    return Anchors(offsets, ticks // timescale * 1000 + ticks % timescale * 1000 // timescale)
