"""A store whose work shows in traces. Put before the store only where spans are collected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shared.observability.tracing import stage
from shared.storage.port import (
    Storage,
    StoredObject,
    UnfinishedUpload,
    UploadedPart,
    WriteOptions,
    Writer,
)


class TracedStorage:
    """Does what its store does; what reads, writes or looks at one object is a stage.

    A stage around a stream is not one that other stages lie in: its user reads one object while another one
    is written, and neither is part of the other.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def bytes_read(self) -> int:
        return self._storage.bytes_read

    async def head(self, key: str) -> StoredObject:
        with stage("storage head", key=key):
            return await self._storage.head(key)

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        with stage("storage read", current=False, key=key) as span:
            async with self._storage.read(key, start=start, end=end, if_match=if_match) as chunks:
                yield chunks
            if end is not None:
                span.note(size_bytes=end - start)

    @asynccontextmanager
    async def writer(self, key: str, options: WriteOptions) -> AsyncIterator[Writer]:
        with stage("storage write", current=False, key=key) as span:
            async with self._storage.writer(key, options) as writer:
                yield writer
            span.note(size_bytes=writer.stored.size_bytes)

    def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        return self._storage.walk(prefix, after=after)

    async def delete(self, key: str) -> None:
        with stage("storage delete", key=key):
            await self._storage.delete(key)

    async def presign(self, key: str, *, expires_s: int) -> str:
        return await self._storage.presign(key, expires_s=expires_s)

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        return await self._storage.unfinished(prefix)

    async def abort(self, upload: UnfinishedUpload) -> None:
        with stage("storage abort", key=upload.key):
            await self._storage.abort(upload)

    async def complete(self, upload: UnfinishedUpload, parts: Sequence[UploadedPart]) -> StoredObject | None:
        with stage("storage complete", key=upload.key):
            return await self._storage.complete(upload, parts)

    async def mark_recovered(self, key: str) -> StoredObject:
        with stage("storage mark", key=key):
            return await self._storage.mark_recovered(key)

    async def check(self) -> None:
        await self._storage.check()

    async def close(self) -> None:
        await self._storage.close()
