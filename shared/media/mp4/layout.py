"""Say where the chosen samples go in the new file, and which bytes of each source they are. Pure.

Samples keep the order in which they lie in their source, so they stream from one file into the other with
nothing held back; whatever lies between them and was not chosen is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from shared.media.mp4.boxes import Ints
from shared.media.mp4.selection import AFTER, BEFORE, COPIED, CannotCopy, Run
from shared.media.mp4.timeline import TrackPlan

# Reading on is cheaper than a new request up to about this much: some milliseconds on an ordinary network.
MERGE_GAP_BYTES = 256 * 1024
CHUNK_SAMPLES = 64  # a second or two: players fetch a chunk at a time


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes [start, end) of a source, all of them wanted."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Segments of one piece's source that one request reads, with small unwanted gaps between them."""

    piece: int
    segments: tuple[Segment, ...]
    held: bytes | None = None  # what is written instead: it was encoded anew

    @property
    def start(self) -> int:
        return self.segments[0].start

    @property
    def end(self) -> int:
        return self.segments[-1].end


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where everything goes. Offsets count from the first byte of media in the new file."""

    fetches: tuple[Fetch, ...]
    offsets: tuple[Ints, ...]  # of each track's samples, in the tracks' order
    media_bytes: int


def lay_out(tracks: Sequence[TrackPlan], pieces: int) -> Layout:
    """Lay the samples of all tracks out, piece by piece.

    Raises CannotCopy when samples share bytes, or have none.
    """
    fetches: list[Fetch] = []
    offsets: list[list[Ints]] = [[] for _ in tracks]
    position = 0
    for piece, part in product(range(pieces), (BEFORE, COPIED, AFTER)):
        runs = [
            (number, run)
            for number, track in enumerate(tracks)
            for run in track.runs
            if (run.piece, run.part) == (piece, part)
        ]
        if not runs:
            continue
        starts, ends, placed, position = _order(runs, position)
        for (number, _), at in zip(runs, placed, strict=True):
            offsets[number].append(at)
        held = runs[0][1].held
        fetches += _fetches(piece, starts, ends) if held is None else [Fetch(piece, (), held)]
    if position == 0:
        raise CannotCopy("the samples of the source are empty")
    return Layout(tuple(fetches), tuple(np.concatenate(parts) for parts in offsets), position)


def _order(runs: Sequence[tuple[int, Run]], position: int) -> tuple[Ints, Ints, list[Ints], int]:
    """Sort the samples of a piece by where they lie, and place them one after another from `position` on."""
    starts = np.concatenate([run.offsets for _, run in runs])
    sizes = np.concatenate([run.sizes for _, run in runs])
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], (starts + sizes)[order]
    if (starts[1:] < ends[:-1]).any():
        raise CannotCopy("samples of the source share their bytes")
    placed = np.empty_like(starts)
    after = position + np.cumsum(sizes[order])
    placed[order] = after - sizes[order]
    cuts = np.cumsum([len(run) for _, run in runs])[:-1]
    return starts, ends, np.split(placed, cuts), int(after[-1])


def _fetches(piece: int, starts: Ints, ends: Ints) -> Iterator[Fetch]:
    breaks = np.flatnonzero(starts[1:] != ends[:-1])
    firsts = starts[np.concatenate([[0], breaks + 1])].tolist()
    lasts = ends[np.concatenate([breaks, [len(ends) - 1]])].tolist()
    near: list[Segment] = []
    for start, end in zip(firsts, lasts, strict=True):
        if start == end:
            continue  # samples may be empty; nothing is fetched for them
        if near and start - near[-1].end > MERGE_GAP_BYTES:
            yield Fetch(piece, tuple(near))
            near = []
        near.append(Segment(start, end))
    if near:
        yield Fetch(piece, tuple(near))


def chunks(offsets: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Group a track's samples into chunks. Returns each chunk's offset and how many samples it has."""
    broken = np.concatenate([[True], offsets[1:] != offsets[:-1] + sizes[:-1]])
    broken[::CHUNK_SAMPLES] = True
    firsts = np.flatnonzero(broken)
    return offsets[firsts], np.diff(firsts, append=len(offsets))
