"""What the fragments of an MP4 file (`moof`) say of their samples. Pure.

A fragment leaves out whatever is as the index (`mvex`) or the head of its track says, and says where its
samples lie in four ways, so much is put together here that a progressive file simply lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.media.mp4.boxes import FULL_BYTES, Ints, Malformed, child, children, read_rows, unpack, walk
from shared.media.mp4.tables import MAX_TICKS, Samples, SampleTable

MAX_RUNS = 4096  # of samples in one fragment, of all tracks; ffmpeg writes one for each track

_BASE_OFFSET, _DESCRIPTION, _DURATION, _SIZE, _FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20  # what `tfhd` has
_BASE_IS_MOOF = 0x2_0000
_DATA_OFFSET, _FIRST_FLAGS = 0x1, 0x4  # what `trun` has, once
_EACH = ((0x100, "u4"), (0x200, "u4"), (0x400, "u4"), (0x800, "i4"))  # and for each sample
_NOT_SYNC = 0x1_0000  # a flag of a sample


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for the samples of a track where nothing else is said."""

    duration_ticks: int = 0
    size_bytes: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Block(Samples):
    """Samples of one track that come one after another in fragments."""

    alone: NDArray[np.bool_]  # whether a sample can be decoded without others
    end_ticks: int  # when the last sample ends


def read_defaults(mvex: memoryview) -> dict[int, Defaults]:
    """Read what `mvex` says of each track, by the track's number. Raises Malformed."""
    found = {}
    for trex in (box.payload for box in walk(mvex) if box.kind == b"trex"):
        number, _description, duration, size, flags = unpack(">5I", trex, FULL_BYTES)
        found[number] = Defaults(duration, size, flags)
    return found


def read_fragment(
    moof: memoryview,
    *,
    at: int,
    defaults: Mapping[int, Defaults],
    ends_ticks: Mapping[int, int],
    object_bytes: int,
) -> list[tuple[int, Block]]:
    """Read the payload of the `moof` box that starts at byte `at`: blocks, each with its track's number.

    `ends_ticks` has where the samples before it end, for fragments that do not say when they are decoded.
    Samples may lie beyond the end of the object, since the end of a recording may be missing; none lies
    before its start. Raises Malformed.
    """
    reader = _FragmentReader(at, object_bytes)
    blocks: list[tuple[int, Block]] = []
    ends = dict(ends_ticks)
    for traf in (box.payload for box in walk(moof) if box.kind == b"traf"):
        number, block = reader.read(traf, defaults, ends)
        if block is not None:
            ends[number] = block.end_ticks
            blocks.append((number, block))
    return blocks


class _FragmentReader:
    """Reads the tracks of one fragment; where the samples of one lie may follow from the one before."""

    def __init__(self, moof_at: int, object_bytes: int) -> None:
        self._moof_at = moof_at
        self._object_bytes = object_bytes
        self._data_at = moof_at  # of the next samples, unless they say otherwise
        self._runs = 0

    def read(
        self, traf: memoryview, defaults: Mapping[int, Defaults], ends_ticks: Mapping[int, int]
    ) -> tuple[int, Block | None]:
        boxes = children(traf)
        tfhd = child(boxes, b"tfhd")
        flags, number = unpack(">II", tfhd)
        base, each = _read_head(tfhd, flags, defaults.get(number, Defaults()))
        if base is not None:
            self._data_at = base
        elif flags & _BASE_IS_MOOF:
            self._data_at = self._moof_at
        base = self._data_at
        runs = [
            self._read_run(trun, base, each)
            for trun in self._truns(traf)
            if unpack(">I", trun, FULL_BYTES)[0]
        ]
        if not runs:
            return number, None
        return number, _join_runs(runs, _read_start(boxes.get(b"tfdt"), ends_ticks.get(number)))

    def _truns(self, traf: memoryview) -> Iterator[memoryview]:
        for box in walk(traf):
            self._runs += 1  # of other boxes as well: each costs time
            if self._runs > MAX_RUNS:
                raise Malformed("a fragment has too many runs of samples")
            if box.kind == b"trun":
                yield box.payload

    def _read_run(self, trun: memoryview, base: int, each: Defaults) -> _Run:
        flags, count = unpack(">II", trun)
        at = FULL_BYTES + 4
        if flags & _DATA_OFFSET:
            self._data_at = base + unpack(">i", trun, at)[0]
            at += 4
        first_flags = None
        if flags & _FIRST_FLAGS:
            (first_flags,) = unpack(">I", trun, at)
            at += 4
        columns = " ".join(code for flag, code in _EACH if flags & flag)
        # A sample has a byte, or a row in the table: so a few bytes cannot declare millions.
        if not columns and count * max(each.size_bytes, 1) > self._object_bytes:
            raise Malformed(f"a fragment declares {count} samples")
        told = iter(read_rows(trun, at, count, columns) if columns else ())
        durations, sizes, sample_flags, composition = (
            next(told) if flags & flag else np.full(count, value, np.int64)
            for (flag, _), value in zip(
                _EACH, (each.duration_ticks, each.size_bytes, each.flags, 0), strict=True
            )
        )
        if first_flags is not None:
            sample_flags[0] = first_flags
        offsets = self._data_at + np.cumsum(sizes) - sizes
        if self._data_at < 0 or self._data_at > MAX_TICKS:
            raise Malformed("the samples of a fragment lie outside of the file")
        self._data_at += int(sizes.sum())
        return _Run(durations, sizes, (sample_flags & _NOT_SYNC) == 0, composition, offsets)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    durations: Ints
    sizes: Ints
    alone: NDArray[np.bool_]
    composition: Ints
    offsets: Ints


def _read_head(tfhd: memoryview, flags: int, defaults: Defaults) -> tuple[int | None, Defaults]:
    """Return where a track's data starts, when it says so, and what holds for its samples."""
    at, base = FULL_BYTES + 4, None
    if flags & _BASE_OFFSET:
        (base,) = unpack(">Q", tfhd, at)
        at += 8
    if flags & _DESCRIPTION:
        at += 4
    values = []
    for flag, default in (
        (_DURATION, defaults.duration_ticks),
        (_SIZE, defaults.size_bytes),
        (_FLAGS, defaults.flags),
    ):
        values.append(unpack(">I", tfhd, at)[0] if flags & flag else default)
        at += 4 if flags & flag else 0
    if base is not None and base > MAX_TICKS:
        raise Malformed("the samples of a fragment lie outside of the file")
    return base, Defaults(*values)


def _read_start(tfdt: memoryview | None, end_ticks: int | None) -> int:
    if tfdt is not None:
        (version,) = unpack(">B", tfdt)
        (start,) = unpack(">Q" if version else ">I", tfdt, FULL_BYTES)
    elif end_ticks is not None:
        start = end_ticks
    else:
        raise Malformed("a fragment does not say when it is decoded")
    if start > MAX_TICKS:
        raise Malformed("the decode times reach beyond any recording")
    return start


def _join_runs(runs: Sequence[_Run], start: int) -> Block:
    durations = np.concatenate([run.durations for run in runs])
    if float(durations.sum(dtype=np.float64)) > MAX_TICKS:
        raise Malformed("the decode times reach beyond any recording")
    ends = start + np.cumsum(durations)
    return Block(
        decode_ticks=ends - durations,
        composition_ticks=np.concatenate([run.composition for run in runs]).astype(np.int32),
        sizes=np.concatenate([run.sizes for run in runs]).astype(np.uint32),
        offsets=np.concatenate([run.offsets for run in runs]),
        alone=np.concatenate([run.alone for run in runs]),
        end_ticks=int(ends[-1]),
    )


def join_blocks(blocks: Sequence[Block]) -> Block:
    """Put the samples of several blocks, of which there is at least one, behind one another."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        decode_ticks=np.concatenate([block.decode_ticks for block in blocks]),
        composition_ticks=np.concatenate([block.composition_ticks for block in blocks]),
        sizes=np.concatenate([block.sizes for block in blocks]),
        offsets=np.concatenate([block.offsets for block in blocks]),
        alone=np.concatenate([block.alone for block in blocks]),
        end_ticks=blocks[-1].end_ticks,
    )


def to_block(samples: SampleTable) -> Block:
    """Return the samples that the index itself lists, as the fragments have theirs."""
    alone = np.ones(len(samples), np.bool_)
    if samples.sync is not None:
        alone[:] = False
        alone[samples.sync] = True
    end = int(samples.decode_ticks[-1]) + samples.last_ticks if len(samples) else 0
    return Block(samples.decode_ticks, samples.composition_ticks, samples.sizes, samples.offsets, alone, end)


def to_table(block: Block, *, is_sound: bool) -> SampleTable:
    """Return the samples as those of a progressive file."""
    return SampleTable(
        decode_ticks=_spread(block.decode_ticks) if is_sound else block.decode_ticks,
        composition_ticks=block.composition_ticks,
        sizes=block.sizes,
        offsets=block.offsets,
        sync=None if block.alone.all() else np.flatnonzero(block.alone),
        last_ticks=block.end_ticks - int(block.decode_ticks[-1]) if len(block) else 0,
    )


def _spread(decode_ticks: Ints) -> Ints:
    """Give every frame of sound a length: one without starts half-way between its neighbours.

    ffmpeg does not know how long a frame is that fills a fragment alone: it says none, and then double.
    """
    without = np.flatnonzero(decode_ticks[1:-1] == decode_ticks[2:]) + 1
    if not len(without):
        return decode_ticks
    spread = decode_ticks.copy()
    spread[without] = (decode_ticks[without - 1] + decode_ticks[without + 1]) // 2
    return spread
