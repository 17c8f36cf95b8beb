"""The samples of a fragmented MP4: found by the fragments' own headers, of which only the wanted are read.

Where the file says where its fragments lie (`sidx` in front of them, `mfra` behind them), the ones around a
cut are read, and the last ones, to know how long the recording is. Where it does not, or is wrong, all
headers are walked over once. What was read is kept for the next cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shared.media.mp4.anchors import Anchors
from shared.media.mp4.boxes import MAX_ROWS, Malformed
from shared.media.mp4.edits import from_late_start, media_span
from shared.media.mp4.finding import find_anchors
from shared.media.mp4.fragments import Block, join_blocks, to_table
from shared.media.mp4.ranges import RangeReader, Window
from shared.media.mp4.tracks import Movie, Span, Track
from shared.media.mp4.walking import FragmentWalk

PARALLEL_READS = 6
PREROLL_SAMPLES = 4  # of sound, before a cut: more than the selection takes
MAX_STEPS_TO_END = 8  # back from the end, to find where each track ends
LATE_START_S = 1  # a recording that starts later is a part of a longer one, and keeps that one's clock


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The samples of the fragments from one anchor to the next, by the number of their track."""

    blocks: Mapping[int, Block]
    truncated: bool  # the object ends inside of it; its whole fragments are there

    @property
    def memory_bytes(self) -> int:
        return sum(block.memory_bytes for block in self.blocks.values())


class Fragments:
    """The fragments of one object, as far as they were read. Belongs to one event loop."""

    def __init__(self, movie: Movie, anchors: Anchors, *, object_bytes: int) -> None:
        """Know nothing yet but where reading may start; `movie` is what the index says."""
        self._movie = movie
        self._anchors = anchors
        self._object_bytes = object_bytes
        self._stretches: dict[int, Stretch] = {}
        self._ends: dict[int, int] | None = None  # when the picture or sound that is last ends, in ticks
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, window: Window, movie: Movie, *, at: int) -> Fragments:
        """Look for what says where the fragments are, which start at byte `at`. Raises Malformed."""
        anchors = await find_anchors(window, movie, at)
        return cls(movie, anchors, object_bytes=window.object_bytes)

    @property
    def memory_bytes(self) -> int:
        return sum(stretch.memory_bytes for stretch in self._stretches.values())

    async def cover(self, reader: RangeReader, span_ms: Span | None) -> Movie:
        """Return the movie with all samples that a cut of `span_ms` needs, and perhaps more.

        Each track's `shown_ticks` is of the whole recording. Raises Malformed, SourceBroken, Transient.
        """
        async with self._lock:
            try:
                return await self._cover(reader, span_ms)
            except Malformed:
                if len(self._anchors) == 1:
                    raise
            # What lists the fragments does not agree with them: they are asked themselves.
            self._anchors = _only_first(self._anchors)
            self._stretches.clear()
            self._ends = None
            return await self._cover(reader, span_ms)

    async def _cover(self, reader: RangeReader, span_ms: Span | None) -> Movie:
        ends = await self._find_ends(reader)
        movie = await self._find_start(reader)
        count = len(self._anchors)
        if span_ms is None:
            return self._join(movie, ends, count - 1, count)
        spans = {track.number: media_span(track, movie.timescale, span_ms) for track in movie.tracks}
        first, stop = self._around(movie.tracks, spans)
        step = 1
        while True:
            await self._load(reader, first, stop)
            found = self._join(movie, ends, first, stop)
            early, late = _lacks(found.tracks, spans, ends)
            if not (early and first) and not (late and stop < count):
                return found
            first, stop = max(0, first - step * early), min(count, stop + step * late)
            step *= 2

    def _around(self, tracks: Sequence[Track], spans: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
        """Guess the stretches that a cut needs by what the anchors say of the first track."""
        starts_ms = self._anchors.starts_ms
        if not tracks:
            return 0, 1
        low, high = (ticks * 1000 // tracks[0].timescale for ticks in spans[tracks[0].number])
        first = max(0, int(np.searchsorted(starts_ms, low, "right")) - 1)
        return first, max(first + 1, int(np.searchsorted(starts_ms, high, "left")))

    async def _find_ends(self, reader: RangeReader) -> dict[int, int]:
        """Return when each track ends, from the last stretches. Tracks without samples there are left out."""
        if self._ends is not None:
            return self._ends
        wanted = {track.number for track in self._movie.tracks}
        ends: dict[int, int] = {}
        for stretch in range(len(self._anchors) - 1, -1, -1)[:MAX_STEPS_TO_END]:
            await self._load(reader, stretch, stretch + 1)
            for number, block in self._stretches[stretch].blocks.items():
                if number in wanted:
                    last = block.end_ticks - int(block.decode_ticks[-1])
                    shown = int(block.shown_ticks.max()) + last
                    ends[number] = max(ends.get(number, 0), shown)
            if wanted <= ends.keys():
                break
        self._ends = ends
        return ends

    async def _find_start(self, reader: RangeReader) -> Movie:
        """Return the movie with its clock set to its own start, where it keeps that of a longer recording."""
        await self._load(reader, 0, 1)
        blocks = self._stretches[0].blocks
        firsts = {number: int(block.shown_ticks.min()) for number, block in blocks.items()}
        first = next((track for track in self._movie.tracks if track.number in firsts), None)
        if first is not None:
            self._anchors = self._anchors.moved(firsts[first.number] * 1000 // first.timescale)
        return from_late_start(self._movie, firsts, late_s=LATE_START_S)

    async def _load(self, reader: RangeReader, first: int, stop: int) -> None:
        missing = [stretch for stretch in range(first, stop) if stretch not in self._stretches]
        turns = asyncio.Semaphore(PARALLEL_READS)

        async def load(number: int) -> None:
            async with turns:
                self._stretches[number] = await self._walk(reader, number)

        results = await asyncio.gather(*(load(number) for number in missing), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                raise error
        samples = sum(len(block) for stretch in self._stretches.values() for block in stretch.blocks.values())
        if samples > min(MAX_ROWS, self._object_bytes):
            raise Malformed(f"its fragments declare {samples} samples")

    async def _walk(self, reader: RangeReader, number: int) -> Stretch:
        offsets, count = self._anchors.offsets, len(self._anchors)
        start = int(offsets[number])
        end = int(offsets[number + 1]) if number + 1 < count else self._object_bytes
        walk = FragmentWalk(Window(reader), self._movie, start, end)
        if number == 0:
            walk.begin(self._movie.tracks)
        await walk.run()
        if number + 1 < count and (walk.truncated or walk.at != end):
            raise Malformed("its fragments do not lie where the file says")
        return Stretch(walk.blocks(), walk.truncated)

    def _join(self, movie: Movie, ends: Mapping[int, int], first: int, stop: int) -> Movie:
        stretches = [self._stretches[number] for number in range(first, stop)]

        def joined(track: Track | None) -> Track | None:
            if track is None:
                return None
            blocks = [stretch.blocks[track.number] for stretch in stretches if track.number in stretch.blocks]
            if not blocks:
                return replace(track, shown_ticks=ends.get(track.number, 0))
            block = join_blocks(blocks)
            return replace(
                track,
                samples=to_table(block, is_sound=track.handler == b"soun"),
                media_ticks=block.end_ticks,
                shown_ticks=ends.get(track.number, 0),
            )

        truncated = self._stretches[len(self._anchors) - 1].truncated
        return replace(movie, video=joined(movie.video), audio=joined(movie.audio), truncated=truncated)


def _lacks(
    tracks: Sequence[Track], spans: Mapping[int, tuple[int, int]], ends: Mapping[int, int]
) -> tuple[bool, bool]:
    """Tell whether a cut needs samples from before, and from behind, those that are there."""
    early = late = False
    for track in tracks:
        low, high = spans[track.number]
        samples, shown = track.samples, track.samples.shown_ticks
        if not len(samples):
            # A track that does not reach the end of the recording may have ended before the cut.
            missing = track.number in ends
            early, late = early or missing, late or missing
            continue
        if track.handler == b"vide":
            key_frames = shown if samples.sync is None else shown[samples.sync]
            early |= not bool((key_frames <= low).any())
        else:
            early |= int(samples.decode_ticks[min(PREROLL_SAMPLES, len(samples) - 1)]) > low
        # What is decoded later may be shown earlier, by no more than samples differ in this.
        ahead = int(samples.composition_ticks.max()) - 2 * int(samples.composition_ticks.min())
        late |= track.media_ticks - ahead < high
    return early, late


def _only_first(anchors: Anchors) -> Anchors:
    return Anchors(anchors.offsets[:1], anchors.starts_ms[:1])
