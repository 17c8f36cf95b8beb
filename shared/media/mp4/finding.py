"""Find what says where the fragments of an MP4 lie: segment indexes in front of them, or one at the end."""

from __future__ import annotations

import numpy as np

from shared.media.mp4.anchors import MFRO_BYTES, Anchors, mfra_bytes, read_mfra, read_sidx
from shared.media.mp4.boxes import LARGE_HEADER_BYTES, Malformed, read_header
from shared.media.mp4.ranges import Window
from shared.media.mp4.tracks import Movie

MIB = 1 << 20
HEAD_BYTES = 4096  # holds the segment index of ten minutes
TAIL_BYTES = 64 * 1024  # holds the index at the end of an hour
MAX_MFRA_BYTES = 16 * MIB  # half a million entries
MAX_SIDX_BYTES = 2 * MIB  # more than its 65,535 entries take
MAX_SIDX = 512  # segment indexes that point to others
MAX_BOXES_BETWEEN = 16  # before a segment index
_BEFORE_FRAGMENTS = (b"styp", b"free", b"skip", b"emsg", b"uuid", b"prft", b"sidx")
_BEHIND_FRAGMENTS = (b"mfra", b"free", b"skip", b"udta", b"meta", b"uuid")


async def find_anchors(window: Window, movie: Movie, at: int) -> Anchors:
    """Return what `sidx` says if it describes all fragments, else what `mfra` says, else the first alone."""
    # Samples that the index itself lists come before those of the fragments.
    first_ms = 0 if any(len(track.samples) for track in movie.tracks) else None
    nothing = Anchors(np.array([], np.int64), np.array([], np.int64))
    try:
        found = await _read_sidx_tree(window, at) or await _read_mfra(window, movie) or nothing
        return found.thinned(first_at=at, first_ms=first_ms, object_bytes=window.object_bytes)
    except Malformed:
        return nothing.thinned(first_at=at, first_ms=first_ms, object_bytes=window.object_bytes)


async def _read_sidx_tree(window: Window, at: int) -> Anchors | None:
    """Read the segment index behind the movie's, and those it points to. None: not of all fragments."""
    first = await _find_sidx(window, at, window.object_bytes)
    if first is None:
        return None
    offsets, starts_ms, read = [], [], 0
    waiting, described = [first], 0
    while waiting:
        start, end = waiting.pop()
        read += 1
        if read > MAX_SIDX or end - start > MAX_SIDX_BYTES:
            raise Malformed("the index of the fragments (sidx) is too large")
        box = await window.take(start, end)
        header = read_header(box)
        if header is None or header.kind != b"sidx":
            raise Malformed("the index of the fragments (sidx) points elsewhere")
        sidx = read_sidx(box[header.header_bytes :], end_at=end)
        described = max(described, sidx.end)
        offsets.append(sidx.anchors.offsets)
        starts_ms.append(sidx.anchors.starts_ms)
        for nested_start, nested_end in sidx.nested:
            found = await _find_sidx(window, nested_start, min(nested_end, window.object_bytes))
            if found is not None:
                waiting.append(found)
            if len(waiting) > MAX_SIDX:
                raise Malformed("the index of the fragments (sidx) is too large")
    if not await _is_all(window, described):
        return None
    return Anchors(np.concatenate(offsets), np.concatenate(starts_ms))


async def _find_sidx(window: Window, at: int, end: int) -> tuple[int, int] | None:
    """Return where the next `sidx` starts and ends, if nothing but small boxes comes before it."""
    for _ in range(MAX_BOXES_BETWEEN):
        if at >= end:
            return None
        header = read_header(
            await window.look(at, needed_bytes=LARGE_HEADER_BYTES, read_bytes=min(HEAD_BYTES, end - at))
        )
        if header is None or header.size_bytes is None or header.kind not in _BEFORE_FRAGMENTS:
            return None
        if header.kind == b"sidx":
            return (at, at + header.size_bytes) if at + header.size_bytes <= end else None
        at += header.size_bytes
    return None


async def _is_all(window: Window, described: int) -> bool:
    """Tell whether no fragment follows the bytes that were described."""
    if described >= window.object_bytes:
        return True
    header = read_header(
        await window.look(described, needed_bytes=LARGE_HEADER_BYTES, read_bytes=LARGE_HEADER_BYTES)
    )
    return header is not None and header.kind in _BEHIND_FRAGMENTS


async def _read_mfra(window: Window, movie: Movie) -> Anchors | None:
    object_bytes = window.object_bytes
    tail_at = max(0, object_bytes - TAIL_BYTES)
    tail = await window.look(tail_at, needed_bytes=object_bytes - tail_at, read_bytes=object_bytes - tail_at)
    size_bytes = mfra_bytes(tail[-MFRO_BYTES:])
    if not 0 < size_bytes <= min(object_bytes, MAX_MFRA_BYTES):
        return None
    start = object_bytes - size_bytes
    mfra = tail[start - tail_at :] if start >= tail_at else await window.take(start, object_bytes)
    header = read_header(mfra)
    if header is None or header.kind != b"mfra" or header.size_bytes != size_bytes:
        return None
    return read_mfra(mfra[header.header_bytes :], {track.number: track.timescale for track in movie.tracks})
