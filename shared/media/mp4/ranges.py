"""Read ranges of one version of one source, and blame the source where it is to blame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.kernel.errors import Conflict, Corrupt, NotFound, Transient
from shared.media.port import SourceBroken
from shared.storage.port import Storage, StoredObject

_NOTHING = memoryview(b"")


@contextmanager
def blaming(key: str) -> Iterator[None]:
    """Name the source in what a store raises while it is read after it was found."""
    try:
        yield
    except (Conflict, NotFound) as error:
        raise Transient(f"the source {key} was replaced while it was read") from error
    except Corrupt as error:
        raise SourceBroken(key, f"the source {key} is truncated: {error.message}") from error


class RangeReader:
    """Reads ranges of one version of one object, whole, and counts the bytes."""

    def __init__(self, storage: Storage, stored: StoredObject) -> None:
        self._storage = storage
        self.stored = stored
        self.bytes_read = 0

    async def read(self, start: int, end: int, *, held: memoryview = _NOTHING) -> memoryview:
        """Return the bytes of [start, end), which lie inside the object and are few enough to hold.

        The first of them may be `held` from a read before; they are not read again. A view, because the
        index of a long recording has many megabytes, and a copy would be held as well.
        Raises SourceBroken when they are not there, Transient when the object was replaced meanwhile.
        """
        found = bytearray(held)
        stored = self.stored
        if start + len(held) >= end:
            return held  # a sample may be empty, a range of a store is not
        with blaming(stored.key):
            async with self._storage.read(
                stored.key, start=start + len(held), end=end, if_match=stored.etag
            ) as chunks:
                async for chunk in chunks:
                    found += chunk
        self.bytes_read += len(found) - len(held)
        return memoryview(found).toreadonly()


class Window:
    """Bytes of one object that are at hand, in one piece; others are read when they are wanted."""

    def __init__(self, reader: RangeReader, *, at: int = 0, held: memoryview = _NOTHING) -> None:
        self._reader = reader
        self._at, self._held = at, held
        self.object_bytes = reader.stored.size_bytes
        self.reads = 0

    async def look(self, at: int, *, needed_bytes: int, read_bytes: int) -> memoryview:
        """Return what is at hand from `at` on: at least `needed_bytes` where the object has as many.

        What is not at hand is read, `read_bytes` of it.
        """
        end = min(at + needed_bytes, self.object_bytes)
        if not self._at <= at <= end <= self._at + len(self._held):
            self.reads += 1
            read_end = min(at + max(read_bytes, needed_bytes), self.object_bytes)
            self._at, self._held = at, await self._reader.read(at, read_end)
        return self._held[at - self._at :]

    async def take(self, start: int, end: int) -> memoryview:
        """Return [start, end), whose first bytes may be at hand; the window stays where it is."""
        held = self._held[start - self._at : end - self._at] if start >= self._at else _NOTHING
        if len(held) == end - start:
            return held
        self.reads += 1
        return await self._reader.read(start, end, held=held)
