"""Carry the chosen samples from the sources into the new file, one chunk in memory at a time.

Where many of them lie together the store may copy them by itself, and they never come here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import pairwise

from shared.media.mp4.layout import Fetch, Segment
from shared.media.mp4.ranges import blaming
from shared.storage.port import COPIED_BYTES, Storage, StoredObject

_STEP_BYTES = 64 << 20  # what is copied before its progress is told
_STEPS = 64  # of one stride: then they are longer


def strides(fetch: Fetch) -> Iterator[Fetch]:
    """Divide a fetch into what a store may copy by itself, and what is read with the gaps between."""
    near: list[Segment] = []
    for segment in fetch.segments:
        if segment.end - segment.start < COPIED_BYTES:
            near.append(segment)
            continue
        if near:
            yield Fetch(fetch.piece, tuple(near))
            near = []
        yield Fetch(fetch.piece, (segment,))
    if near:
        yield Fetch(fetch.piece, tuple(near))


def is_copied(stride: Fetch) -> bool:
    """Say whether a stride is one that a store may copy by itself."""
    return len(stride.segments) == 1 and stride.end - stride.start >= COPIED_BYTES


def copied_steps(stride: Fetch) -> Iterator[tuple[int, int]]:
    """Divide a stride that a store may copy into ranges, after each of which progress can be told."""
    size_bytes = stride.end - stride.start
    count = min(_STEPS, -(-size_bytes // _STEP_BYTES))
    return pairwise(stride.start + size_bytes * index // count for index in range(count + 1))


async def read_wanted(
    storage: Storage, source: StoredObject, fetch: Fetch, *, on_read: Callable[[int], None]
) -> AsyncGenerator[bytes | memoryview]:
    """Yield the wanted bytes of one fetch in order; `on_read` is told how many bytes came from the store.

    Whoever stops early closes the generator. Raises SourceBroken, or Transient when the source was replaced
    since its index was read.
    """
    sieve, at = _Sieve(fetch.segments), fetch.start
    with blaming(source.key):
        async with storage.read(source.key, start=fetch.start, end=fetch.end, if_match=source.etag) as chunks:
            async for chunk in chunks:
                on_read(len(chunk))
                parts = list(sieve.wanted(memoryview(chunk), at))
                at += len(chunk)
                if parts:
                    yield parts[0] if len(parts) == 1 else b"".join(parts)


class _Sieve:
    """Lets the bytes of some segments through. Chunks come in order, and so do the segments."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._next = 0

    def wanted(self, chunk: memoryview, at: int) -> Iterator[memoryview]:
        """Yield the parts of a chunk, whose first byte lies at `at`, that are in a segment."""
        end = at + len(chunk)
        while self._next < len(self._segments):
            segment = self._segments[self._next]
            if segment.start >= end:
                return
            yield chunk[max(segment.start, at) - at : min(segment.end, end) - at]
            if segment.end > end:
                return
            self._next += 1
