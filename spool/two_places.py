"""A source in one place and a result in another, seen by the media engine as one store with two keys."""
# The port has parameters for which two objects have no use.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from shared.kernel.errors import Bug, NotFound, Refused
from shared.storage.copying import copy_by_reading
from shared.storage.port import Storage, StoredObject, UnfinishedUpload, UploadedPart, WriteOptions, Writer

RESULT = "clip/"  # no path and no key ends so: the source can have no such name


@dataclass(frozen=True, slots=True)
class Slot:
    """An object of some store."""

    store: Storage
    key: str


class TwoPlaces:
    """A store of exactly two objects, which names neither as their own stores do."""

    def __init__(self, name: str, source: Slot, result: Slot) -> None:
        """Take both stores open; whoever opened them closes them. The source's key is its `name`."""
        self._slots = {name: source, RESULT: result}

    @property
    def bytes_read(self) -> int:
        return sum(store.bytes_read for store in {slot.store for slot in self._slots.values()})

    async def head(self, key: str) -> StoredObject:
        slot = self._slot(key)
        return replace(await slot.store.head(slot.key), key=key)

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        slot = self._slot(key)
        async with slot.store.read(slot.key, start=start, end=end, if_match=if_match) as chunks:
            yield chunks

    @asynccontextmanager
    async def writer(self, key: str, options: WriteOptions) -> AsyncIterator[Writer]:
        if key != RESULT:
            raise Bug("the source is never written")
        slot = self._slot(key)
        async with slot.store.writer(slot.key, options) as writer:
            yield _RenamedWriter(self, writer, key)

    async def copy(self, writer: Writer, source: StoredObject, start: int, end: int) -> int:
        """Append bytes of the source to the result: inside of their store, where they are in the same."""
        slot, result = self._slot(source.key), self._slot(RESULT)
        if slot.store is result.store:
            return await writer.copy(replace(source, key=slot.key), start, end)
        await copy_by_reading(self, writer, source, start, end)
        return 0

    def _slot(self, key: str) -> Slot:
        try:
            return self._slots[key]
        except KeyError:
            raise Bug(f"{key} is neither the source nor the result") from None

    async def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """Walk over whichever of the two is there."""
        for key in sorted(self._slots):
            if key.startswith(prefix) and key > after:
                with suppress(NotFound):
                    yield await self.head(key)

    async def delete(self, key: str) -> None:
        if key != RESULT:
            raise Bug("the source is never removed")
        slot = self._slot(key)
        await slot.store.delete(slot.key)

    async def presign(self, key: str, *, expires_s: int) -> str:
        slot = self._slot(key)
        return await slot.store.presign(slot.key, expires_s=expires_s)

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        """Others' uploads in the bucket are none of ours."""
        return []

    async def abort(self, upload: UnfinishedUpload) -> None:
        raise Refused("uploads of others are not touched")

    async def complete(self, upload: UnfinishedUpload, parts: Sequence[UploadedPart]) -> StoredObject | None:
        raise Refused("uploads of others are not touched")

    async def mark_recovered(self, key: str) -> StoredObject:
        raise Refused("uploads of others are not touched")

    async def check(self) -> None:
        for slot in self._slots.values():
            await slot.store.check()

    async def close(self) -> None:
        """Both stores are their opener's."""


class _RenamedWriter:
    """A writer whose finished object is told under our key."""

    def __init__(self, places: TwoPlaces, writer: Writer, key: str) -> None:
        self._places = places
        self._writer = writer
        self._key = key

    async def write(self, chunk: bytes | memoryview) -> None:
        await self._writer.write(chunk)

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        return await self._places.copy(self._writer, source, start, end)

    async def prepend(self, head: bytes) -> None:
        await self._writer.prepend(head)

    @property
    def stored(self) -> StoredObject:
        return replace(self._writer.stored, key=self._key)
