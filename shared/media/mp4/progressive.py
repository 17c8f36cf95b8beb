"""Turn a fragmented MP4, while it is being written, into the media and the head of a progressive one. Pure.

An encoder that writes into a pipe can write nothing but fragments. Their samples pass on as they come; what
the fragments say of them is collected and becomes the index that stands in front and is written last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shared.media.mp4.boxes import LARGE_HEADER_BYTES, MAX_ROWS, Header, Malformed, name, read_header
from shared.media.mp4.fragments import Block, join_blocks, read_fragment, to_table
from shared.media.mp4.layout import Layout
from shared.media.mp4.movie import write_header
from shared.media.mp4.selection import CannotCopy, Run
from shared.media.mp4.timeline import TrackPlan
from shared.media.mp4.tracks import Edit, Movie, Track, read_movie
from shared.media.ticks import TICKS_PER_MS, TICKS_PER_S

BOX_BYTES = 16 << 20  # of a box that is held; the index of half a second has some thousand
_UNTOLD_BYTES = 1 << 20  # of samples that a fragment only counts; an encoder's own have a row each


class Progressive:
    """Takes the bytes of a fragmented MP4 in order and gives back those of its samples."""

    def __init__(self) -> None:
        self.media_bytes = 0  # given back so far
        self._held = bytearray()  # of a box that is not complete
        self._at = 0  # where in the stream that begins
        self._left_bytes = 0  # of the media of this fragment
        self._movie: Movie | None = None
        self._next: list[
            tuple[int, Block]
        ] = []  # samples whose media comes next, by the number of their track
        self._blocks: dict[int, list[Block]] = {}
        self._samples = 0

    def take(self, chunk: bytes) -> bytes:
        """Take the next bytes, and return the media in them. Raises Malformed."""
        self._held += chunk
        media = []
        while self._held:
            if self._left_bytes:
                media.append(self._release())
            elif not self._take_box():
                break
        return b"".join(media)

    def head(self, duration_ms: int) -> bytes:
        """Return what stands before all the media, of a clip that lasts as long. Raises Malformed."""
        if self._movie is None or self._held or self._left_bytes or self._next:
            raise Malformed("what was encoded ends in the middle")
        tracks = tuple(
            _as_it_is(_with_samples(track, self._blocks), self._movie.timescale, duration_ms)
            for track in self._movie.tracks
            if track.number in self._blocks
        )
        if not tracks:
            raise Malformed("what was encoded holds nothing")
        layout = Layout((), tuple(plan.runs[0].offsets for plan in tracks), self.media_bytes)
        try:
            return write_header(tracks, layout, self._movie.matrix, duration_ms)
        except CannotCopy as error:
            raise Malformed(str(error)) from error

    def _release(self) -> bytes:
        part = bytes(self._held[: self._left_bytes])
        self._forget(len(part))
        self._left_bytes -= len(part)
        self.media_bytes += len(part)
        return part

    def _take_box(self) -> bool:
        """Take the box that is held, if it is complete; of media its header is enough."""
        header = read_header(memoryview(bytes(self._held[:LARGE_HEADER_BYTES])))
        if header is None:
            return False
        size_bytes = header.size_bytes
        if size_bytes is None:
            raise Malformed(f"the box {name(header.kind)} has no end")
        if header.kind == b"mdat":
            self._begin_media(size_bytes - header.header_bytes, self._at + header.header_bytes)
            self._forget(header.header_bytes)
            return True
        if size_bytes > BOX_BYTES:
            raise Malformed(f"the box {name(header.kind)} has {size_bytes} bytes")
        if len(self._held) < size_bytes:
            return False
        self._read(header, memoryview(bytes(self._held[header.header_bytes : size_bytes])))
        self._forget(size_bytes)
        return True

    def _forget(self, size_bytes: int) -> None:
        del self._held[:size_bytes]
        self._at += size_bytes

    def _read(self, header: Header, payload: memoryview) -> None:
        if header.kind == b"moov":
            self._movie = read_movie(payload, object_bytes=0)
        if header.kind != b"moof":
            return
        if self._movie is None or self._next:
            raise Malformed("a fragment comes before the index, or before the media of the last one")
        self._next = read_fragment(
            payload,
            at=self._at,
            defaults=self._movie.defaults or {},
            ends_ticks={number: blocks[-1].end_ticks for number, blocks in self._blocks.items()},
            object_bytes=_UNTOLD_BYTES,
        )

    def _begin_media(self, size_bytes: int, at: int) -> None:
        """Place the samples of a fragment, whose media starts at byte `at` of the stream."""
        for number, block in self._next:
            ends = block.offsets + block.sizes
            if len(block) and (int(block.offsets.min()) < at or int(ends.max()) > at + size_bytes):
                raise Malformed("the samples of a fragment lie outside of its media")
            placed = replace(block, offsets=block.offsets - at + self.media_bytes)
            self._blocks.setdefault(number, []).append(placed)
            self._samples += len(block)
        if self._samples > MAX_ROWS:
            raise Malformed(f"the fragments have {self._samples} samples")
        self._next = []
        self._left_bytes = size_bytes


def _with_samples(track: Track, blocks: Mapping[int, list[Block]]) -> Track:
    block = join_blocks(blocks[track.number])
    return replace(track, samples=to_table(block, is_sound=track.handler == b"soun"))


def _as_it_is(track: Track, movie_timescale: int, duration_ms: int) -> TrackPlan:
    """Plan a track with all its samples, shown as the encoder says, up to the end of the clip."""
    samples = track.samples
    lead_ticks, start = _start(track, movie_timescale)
    shown_ticks = max(1, duration_ms * TICKS_PER_MS - lead_ticks)
    end = start + shown_ticks * track.timescale // TICKS_PER_S
    # The last picture is held to the end; how long an encoder says that it lasts may be nothing.
    last_ticks = max(samples.last_ticks, end - int(samples.decode_ticks[-1]), 1)
    decode, shown = samples.decode_ticks, samples.shown_ticks
    run = Run(0, samples, 0, len(samples), start, end, decode, shown, last_ticks)
    lead = (Edit(lead_ticks, None),) if lead_ticks else ()
    edits = (*lead, Edit(shown_ticks, start))
    return TrackPlan(track, track.timescale, (run,), decode, shown, last_ticks, edits)


def _start(track: Track, movie_timescale: int) -> tuple[int, int]:
    """Return for how many ticks of the clip nothing is shown, and which tick of the media is then shown."""
    lead_ticks = 0
    for edit in track.edits:
        if edit.media_ticks is not None:
            return lead_ticks, edit.media_ticks
        lead_ticks += edit.duration_ticks * TICKS_PER_S // movie_timescale
    return lead_ticks, 0
