"""Read the index of a stored source by a few small ranges, and keep it for the next clip of the same source.

A camera's file with `moov` at the end costs one HEAD and two reads, one with `moov` at the front the same.
Of a fragmented file only what a clip needs is read, and added to what is kept.
"""

from __future__ import annotations

import asyncio
import string
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from shared.media.mp4.boxes import LARGE_HEADER_BYTES, Malformed, name, read_header
from shared.media.mp4.fragmented import Fragments
from shared.media.mp4.ranges import RangeReader, Window
from shared.media.mp4.tracks import Movie, Span, read_movie
from shared.media.port import SourceBroken
from shared.media.sniff import MP4, SNIFF_BYTES, Container, sniff
from shared.storage.port import Storage, StoredObject

MIB = 1 << 20
HEAD_BYTES = 16 * 1024  # holds `ftyp`, the start of `mdat`, and enough of any other container to name it
# What follows `mdat` is nearly always `moov`, so it is read without first asking: two hours have 5 MiB.
TAIL_BYTES = 8 * MIB
MAX_MOOV_BYTES = 64 * MIB  # a day of camera has 60; the tables it could expand to are bounded as well
MAX_READS = 23  # of headers on the way to `moov`; ordinary files need two
CACHE_BYTES = 24 * MIB  # of expanded tables: ten hours of camera
CACHE_ENTRIES = 32


@dataclass(frozen=True, slots=True, eq=False)
class SourceIndex:
    """What is known of a source without its samples. `movie` is None for a container other than MP4."""

    stored: StoredObject
    container: Container
    movie: Movie | None
    bytes_read: int  # of the object, for this; 0 when it was in the cache
    fragments: Fragments | None = None  # of a fragmented MP4; of its samples `movie` has some

    @property
    def key(self) -> str:
        return self.stored.key

    @property
    def memory_bytes(self) -> int:
        fragments_bytes = 0 if self.fragments is None else self.fragments.memory_bytes
        return fragments_bytes + (0 if self.movie is None else self.movie.memory_bytes)


class Indexes:
    """The indexes of the sources of one store, read when they are wanted; the last few are kept."""

    def __init__(self, storage: Storage, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Keep indexes whose tables take up to `cache_bytes` together. An index is good for one ETag only."""
        self._storage = storage
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[tuple[str, str], SourceIndex] = OrderedDict()

    async def load(self, key: str, span_ms: Span | None = None) -> SourceIndex:
        """Return the index of a source; of a fragmented one at least the samples that `span_ms` needs.

        A span is [start, end) of the presentation; without one a fragmented source's index says how long it
        is shown, and has few of its samples. Raises NotFound, SourceBroken (naming the source) or Transient.
        """
        stored = await self._storage.head(key)
        index = self._kept.get((key, stored.etag))
        if index is not None:
            self._kept.move_to_end((key, stored.etag))
            index = replace(index, bytes_read=0)
        else:
            index = await read_index(self._storage, stored)
            self.keep(index)
        if index.fragments is None:
            return index
        index = await _with_samples(self._storage, index, index.fragments, span_ms)
        self._forget()
        return index

    def keep(self, index: SourceIndex) -> None:
        """Keep an index that was read elsewhere."""
        for key in [key for key in self._kept if key[0] == index.key]:
            del self._kept[key]  # another ETag: the object was replaced
        self._kept[index.key, index.stored.etag] = index
        self._forget()

    def _forget(self) -> None:
        while len(self._kept) > CACHE_ENTRIES or self._memory_bytes() > self._cache_bytes:
            self._kept.popitem(last=False)

    def _memory_bytes(self) -> int:
        return sum(index.memory_bytes for index in self._kept.values())


async def read_index(storage: Storage, stored: StoredObject) -> SourceIndex:
    """Read the index of one object. Raises SourceBroken or Transient."""
    if stored.size_bytes == 0:
        raise SourceBroken(stored.key, f"the source {stored.key} is empty")
    reader = RangeReader(storage, stored)
    head = await reader.read(0, min(HEAD_BYTES, stored.size_bytes))
    container = sniff(bytes(head[:SNIFF_BYTES]))
    if container is None:
        what = f"the source {stored.key} is {_describe(bytes(head[:SNIFF_BYTES]))}"
        raise SourceBroken(stored.key, what, hint="a source is a recording in one file")
    if container != MP4:
        return SourceIndex(stored, container, None, reader.bytes_read)
    with _blaming_bytes(stored.key):
        window = Window(reader, held=head)
        walk = _Walk(window)
        moov = await walk.find_moov()
        # Minutes of tables are milliseconds of work, hours of them are not: the event loop goes on meanwhile.
        movie = await asyncio.to_thread(read_movie, moov, object_bytes=stored.size_bytes)
        fragments = await Fragments.open(window, movie, at=walk.at) if movie.fragmented else None
    return SourceIndex(stored, MP4, movie, reader.bytes_read, fragments)


async def _with_samples(
    storage: Storage, index: SourceIndex, fragments: Fragments, span_ms: Span | None
) -> SourceIndex:
    reader = RangeReader(storage, index.stored)
    with _blaming_bytes(index.key):
        movie = await fragments.cover(reader, span_ms)
    return replace(index, movie=movie, bytes_read=index.bytes_read + reader.bytes_read)


@contextmanager
def _blaming_bytes(key: str) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise SourceBroken(key, f"the source {key} is damaged: {error.message}") from error


def _describe(head: bytes) -> str:
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"#EXTM3U"):
        return "a playlist, not media"
    printable = string.printable.encode()
    # A multi-byte character of UTF-8 is text as well.
    if all(octet in printable or octet >= 0x80 for octet in head[:512]):
        return "a text file, not media"
    return "not media that Spool knows"


class _Walk:
    """Walks over the boxes of the outermost level by their headers, up to `moov`."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.at = 0  # where the box is that comes next

    async def find_moov(self) -> memoryview:
        """Return the payload of `moov`, and stand behind it. Raises Malformed."""
        before, object_bytes = b"", self._window.object_bytes
        while self.at < object_bytes:
            header = read_header(await self._look(TAIL_BYTES if before == b"mdat" else HEAD_BYTES))
            if header is None:
                raise Malformed(f"it ends inside of a box at byte {self.at}")
            end = object_bytes if header.size_bytes is None else self.at + header.size_bytes
            if end > object_bytes:
                raise Malformed(
                    f"it is truncated: {name(header.kind)} reaches {end - object_bytes} bytes beyond"
                )
            start, self.at, before = self.at + header.header_bytes, end, header.kind
            if header.kind == b"moov":
                return await self._payload(start, end)
        raise Malformed("it has no index (moov); the recording was probably never finished")

    async def _look(self, most_bytes: int) -> memoryview:
        """Return the bytes of the next box that are at hand, with at least a header where there is one."""
        left_bytes = self._window.object_bytes - self.at
        read_bytes = left_bytes if left_bytes <= most_bytes else HEAD_BYTES
        found = await self._window.look(self.at, needed_bytes=LARGE_HEADER_BYTES, read_bytes=read_bytes)
        if self._window.reads > MAX_READS:
            raise Malformed("its index (moov) is behind too many boxes")
        return found

    async def _payload(self, start: int, end: int) -> memoryview:
        if end - start > MAX_MOOV_BYTES:
            raise Malformed(f"its index (moov) says it is {end - start} bytes long")
        return await self._window.take(start, end)
