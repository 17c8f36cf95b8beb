"""The sample tables of a track: when each sample is decoded and shown, where it lies, and which stand alone.

The tables of a file are compressed in ways that let eight bytes claim four thousand million samples, so what
they add up to is checked before anything is expanded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from shared.media.mp4.boxes import FULL_BYTES, MAX_ROWS, Ints, Malformed, child, read_rows, unpack

MAX_TICKS = 1 << 53  # of decode time: the sums below stay far from 64 bits


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One entry per sample, in decode order. Times are ticks of the track's time scale, offsets bytes."""

    decode_ticks: Ints
    composition_ticks: NDArray[np.int32]  # from decoding to showing; may be negative
    sizes: NDArray[np.uint32]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.decode_ticks)

    @property
    def shown_ticks(self) -> Ints:
        """When each sample is shown."""
        return self.decode_ticks + self.composition_ticks

    @property
    def memory_bytes(self) -> int:
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


@dataclass(frozen=True, slots=True, eq=False)
class SampleTable(Samples):
    """All samples of a track."""

    sync: Ints | None  # which samples can be decoded alone, ascending; None: all of them
    last_ticks: int  # how long the last sample lasts

    def sync_before(self, sample: int) -> int:
        """Return how many samples up to and including `sample` can be decoded alone."""
        return sample + 1 if self.sync is None else int(np.searchsorted(self.sync, sample, "right"))

    def sync_at(self, index: int) -> int:
        """Return the number of the `index`-th sample that can be decoded alone."""
        return index if self.sync is None else int(self.sync[index])


def read_tables(stbl: Mapping[bytes, memoryview], *, object_bytes: int) -> SampleTable:
    """Expand the tables of one track. Raises Malformed when they contradict each other or the object."""
    boxes = dict(stbl)
    sizes = _read_sizes(boxes, object_bytes)
    decode_ticks, last_ticks = _read_decode_ticks(child(boxes, b"stts"), len(sizes))
    offsets = _read_offsets(boxes, sizes, object_bytes)
    return SampleTable(
        decode_ticks=decode_ticks,
        composition_ticks=_read_composition_ticks(boxes.get(b"ctts"), len(sizes)),
        sizes=sizes.astype(np.uint32),
        offsets=offsets,
        sync=_read_sync(boxes.get(b"stss"), len(sizes)),
        last_ticks=last_ticks,
    )


def _read_sizes(boxes: dict[bytes, memoryview], object_bytes: int) -> Ints:
    if b"stsz" not in boxes and b"stz2" in boxes:
        raise Malformed("sizes of less than 32 bits (stz2) are not understood")
    stsz = child(boxes, b"stsz")
    each_bytes, count = unpack(">II", stsz, FULL_BYTES)
    if count > MAX_ROWS or count * each_bytes > object_bytes:
        raise Malformed(f"a track declares {count} samples")
    if each_bytes:
        return np.full(count, each_bytes, np.int64)
    return read_rows(stsz, FULL_BYTES + 8, count, "u4")[0]


def _read_decode_ticks(stts: memoryview, samples: int) -> tuple[Ints, int]:
    (rows,) = unpack(">I", stts, FULL_BYTES)
    counts, deltas = read_rows(stts, FULL_BYTES + 4, rows, "u4 u4")
    # Some writers leave a run behind that no sample uses; one that is missing cannot be made up.
    if int(counts.sum()) < samples:
        raise Malformed("there are fewer decode times than samples")
    ends = np.minimum(np.cumsum(counts), samples)
    counts = np.diff(ends, prepend=0)
    if int((counts.astype(np.float64) * deltas).sum()) > MAX_TICKS:
        raise Malformed("the decode times reach beyond any recording")
    each = np.repeat(deltas, counts)
    ticks = np.zeros(samples, np.int64)
    np.cumsum(each[:-1], out=ticks[1:])
    return ticks, int(each[-1]) if samples else 0


def _read_composition_ticks(ctts: memoryview | None, samples: int) -> NDArray[np.int32]:
    if ctts is None:
        return np.zeros(samples, np.int32)
    (rows,) = unpack(">I", ctts, FULL_BYTES)
    # Version 0 is unsigned by the standard, yet writers put negative numbers there; nobody means 2**31 ticks.
    counts, ticks = read_rows(ctts, FULL_BYTES + 4, rows, "u4 i4")
    ends = np.minimum(np.cumsum(counts), samples)
    expanded = np.repeat(ticks.astype(np.int32), np.diff(ends, prepend=0))
    return np.pad(expanded, (0, samples - len(expanded)))


def _read_sync(stss: memoryview | None, samples: int) -> Ints | None:
    if stss is None:
        return None
    (rows,) = unpack(">I", stss, FULL_BYTES)
    numbers = read_rows(stss, FULL_BYTES + 4, rows, "u4")[0] - 1
    if len(numbers) and (numbers[0] < 0 or numbers[-1] >= samples or (np.diff(numbers) <= 0).any()):
        raise Malformed("the key frames are out of order")
    return numbers


def _read_offsets(boxes: dict[bytes, memoryview], sizes: Ints, object_bytes: int) -> Ints:
    """Add up where each sample lies: chunks lie anywhere, the samples of a chunk one after another."""
    chunk_offsets = _read_chunk_offsets(boxes)
    if not len(sizes):
        return np.zeros(0, np.int64)
    per_chunk = _read_chunk_lengths(child(boxes, b"stsc"), len(chunk_offsets), len(sizes))
    ends = np.minimum(np.cumsum(per_chunk), len(sizes))
    if not len(ends) or ends[-1] != len(sizes):
        raise Malformed("the chunks hold fewer samples than there are")
    counts = np.diff(ends, prepend=0)
    within = np.cumsum(sizes) - sizes
    starts = np.minimum(ends - counts, len(sizes) - 1)
    offsets: Ints = np.repeat(chunk_offsets - within[starts], counts)
    offsets += within
    if (offsets < 0).any() or (offsets > object_bytes - sizes).any():
        raise Malformed("samples lie beyond the end of the file: it is truncated")
    return offsets


def _read_chunk_offsets(boxes: dict[bytes, memoryview]) -> Ints:
    code, kind = ("u8", b"co64") if b"co64" in boxes else ("u4", b"stco")
    table = child(boxes, kind)
    (rows,) = unpack(">I", table, FULL_BYTES)
    # Beyond 63 bits an offset turns negative here, and is refused with the others outside the object.
    return read_rows(table, FULL_BYTES + 4, rows, code)[0]


def _read_chunk_lengths(stsc: memoryview, chunks: int, samples: int) -> Ints:
    (rows,) = unpack(">I", stsc, FULL_BYTES)
    first, per_chunk, _description = read_rows(stsc, FULL_BYTES + 4, rows, "u4 u4 u4")
    if not rows or first[0] != 1 or (np.diff(first) <= 0).any() or first[-1] > max(chunks, 1):
        raise Malformed("the runs of chunks are out of order")
    if (per_chunk > samples).any():
        raise Malformed("a chunk declares more samples than there are")
    return np.repeat(per_chunk, np.diff(first, append=chunks + 1))
