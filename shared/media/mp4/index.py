"""Read the index of a stored source by a few small ranges, and keep it for the next clip of the same source.

A camera's file with `moov` at the end costs one HEAD and two reads, one with `moov` at the front the same.
"""

from __future__ import annotations

import asyncio
import string
from collections import OrderedDict
from dataclasses import dataclass

from shared.media.mp4.boxes import Malformed, name, read_header
from shared.media.mp4.ranges import RangeReader
from shared.media.mp4.tracks import Movie, read_movie
from shared.media.port import SourceBroken
from shared.media.sniff import MP4, SNIFF_BYTES, Container, sniff
from shared.storage.port import Storage, StoredObject

MIB = 1 << 20
HEAD_BYTES = 16 * 1024  # holds `ftyp`, the start of `mdat`, and enough of any other container to name it
# What follows `mdat` is nearly always `moov`, so it is read without first asking: two hours have 5 MiB.
TAIL_BYTES = 8 * MIB
MAX_MOOV_BYTES = 64 * MIB  # a day of camera has 60; the tables it could expand to are bounded as well
MAX_READS = 24  # of headers on the way to `moov`; ordinary files need two
CACHE_BYTES = 24 * MIB  # of expanded tables: ten hours of camera
CACHE_ENTRIES = 32


@dataclass(frozen=True, slots=True, eq=False)
class SourceIndex:
    """What is known of a source without its samples. `movie` is None for a container other than MP4."""

    stored: StoredObject
    container: Container
    movie: Movie | None
    bytes_read: int  # of the object, for this; 0 when it was in the cache

    @property
    def key(self) -> str:
        return self.stored.key


class Indexes:
    """The indexes of the sources of one store, read when they are wanted; the last few are kept."""

    def __init__(self, storage: Storage, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Keep indexes whose tables take up to `cache_bytes` together. An index is good for one ETag only."""
        self._storage = storage
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[tuple[str, str], SourceIndex] = OrderedDict()

    async def load(self, key: str) -> SourceIndex:
        """Return the index of a source. Raises NotFound, SourceBroken (naming the source) or Transient."""
        stored = await self._storage.head(key)
        kept = self._kept.get((key, stored.etag))
        if kept is not None:
            self._kept.move_to_end((key, stored.etag))
            return SourceIndex(kept.stored, kept.container, kept.movie, 0)
        index = await read_index(self._storage, stored)
        self.keep(index)
        return index

    def keep(self, index: SourceIndex) -> None:
        """Keep an index that was read elsewhere."""
        for key in [key for key in self._kept if key[0] == index.key]:
            del self._kept[key]  # another ETag: the object was replaced
        self._kept[index.key, index.stored.etag] = index
        while len(self._kept) > CACHE_ENTRIES or self._memory_bytes() > self._cache_bytes:
            self._kept.popitem(last=False)

    def _memory_bytes(self) -> int:
        return sum(index.movie.memory_bytes for index in self._kept.values() if index.movie is not None)


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
    try:
        moov = await _Walk(reader, head).find_moov()
        # Minutes of tables are milliseconds of work, hours of them are not: the event loop goes on meanwhile.
        movie = await asyncio.to_thread(read_movie, moov, object_bytes=stored.size_bytes)
    except Malformed as error:
        raise SourceBroken(stored.key, f"the source {stored.key} is damaged: {error.message}") from error
    return SourceIndex(stored, MP4, movie, reader.bytes_read)


def _describe(head: bytes) -> str:
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"#EXTM3U"):
        return "a playlist, not media"
    printable = string.printable.encode()
    # A multi-byte character of UTF-8 is text as well.
    if all(octet in printable or octet >= 0x80 for octet in head[:512]):
        return "a text file, not media"
    return "not media that Spool knows"


class _Walk:
    """Walks over the boxes of the outermost level by their headers, with one window of bytes at hand."""

    def __init__(self, reader: RangeReader, head: memoryview) -> None:
        self._reader = reader
        self._size_bytes = reader.stored.size_bytes
        self._window_at, self._window = 0, head
        self._reads = 1

    async def find_moov(self) -> memoryview:
        """Return the payload of `moov`. Raises Malformed."""
        at, before = 0, b""
        while at < self._size_bytes:
            header = read_header(
                await self._at_hand(at, most_bytes=TAIL_BYTES if before == b"mdat" else HEAD_BYTES)
            )
            if header is None:
                raise Malformed(f"it ends inside of a box at byte {at}")
            end = self._size_bytes if header.size_bytes is None else at + header.size_bytes
            if end > self._size_bytes:
                raise Malformed(
                    f"it is truncated: {name(header.kind)} reaches {end - self._size_bytes} bytes beyond"
                )
            if header.kind == b"moov":
                return await self._payload(at + header.header_bytes, end)
            at, before = end, header.kind
        raise Malformed("it has no index (moov); the recording was probably never finished")

    async def _at_hand(self, at: int, *, most_bytes: int) -> memoryview:
        """Return the bytes from `at` on that are in the window, with at least a header where there is one."""
        wanted_end = min(at + 16, self._size_bytes)
        if not self._window_at <= at <= wanted_end <= self._window_at + len(self._window):
            self._reads += 1
            if self._reads > MAX_READS:
                raise Malformed("its index (moov) is behind too many boxes")
            left_bytes = self._size_bytes - at
            end = at + (left_bytes if left_bytes <= most_bytes else min(HEAD_BYTES, left_bytes))
            self._window_at, self._window = at, await self._reader.read(at, end)
        return self._window[at - self._window_at :]

    async def _payload(self, start: int, end: int) -> memoryview:
        if end - start > MAX_MOOV_BYTES:
            raise Malformed(f"its index (moov) says it is {end - start} bytes long")
        held = self._window[start - self._window_at : end - self._window_at]
        if len(held) == end - start:
            return held
        return await self._reader.read(start, end, held=held)
