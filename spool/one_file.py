"""One ordinary file as a store of one object: so the engine of the services cuts files on a disk as well."""
# The port has parameters for which one file has no use.
# ruff: noqa: ARG002

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from shared.kernel.errors import Conflict, Corrupt, NotFound, Refused
from shared.storage.copying import copy_by_reading
from shared.storage.doors import admit_copy, admit_head
from shared.storage.head import put_first
from shared.storage.port import StoredObject, UnfinishedUpload, UploadedPart, WriteOptions

CHUNK_BYTES = 1 << 20  # what the port allows a reader to hand out


class OneFile:
    """A file that is read, or written, under whatever key. `shared.storage.port.Storage` in full.

    A file being written is a scratch file of whoever asked: it is visible from its first byte, and the
    asker gives it its name when all is proved. Nothing is written beside it.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened yet."""
        self.path = path
        self._bytes_read = 0

    @property
    def bytes_read(self) -> int:
        return self._bytes_read

    async def head(self, key: str) -> StoredObject:
        return self._described(key, self._status())

    def _status(self) -> os.stat_result:
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{self.path} does not exist") from error
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{self.path} is not a regular file")
        return found

    def _described(self, key: str, found: os.stat_result, sha256: str | None = None) -> StoredObject:
        etag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
        return StoredObject(key, found.st_size, etag, found.st_mtime_ns // 1_000_000, sha256=sha256)

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        found = self._described(key, self._status())
        if if_match is not None and found.etag != if_match:
            raise Conflict(f"{self.path} changed while it was read")
        with self.path.open("rb") as file:
            yield self._chunks(file, start, found.size_bytes if end is None else end)

    async def _chunks(self, file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
        await asyncio.to_thread(file.seek, start)
        position = start
        while position < end:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - position))
            if not chunk:
                raise Corrupt(f"{self.path} ends at byte {position}, before {end}")
            position += len(chunk)
            self._bytes_read += len(chunk)
            yield chunk

    @asynccontextmanager
    async def writer(self, key: str, options: WriteOptions) -> AsyncIterator[_FileWriter]:
        with self.path.open("w+b") as file:
            writer = _FileWriter(self, file, options)
            yield writer
            await writer.end()
            if options.before_completion:
                await options.before_completion()
            await asyncio.to_thread(_settle, file)
            writer.finish(self._described(key, os.fstat(file.fileno()), writer.sha256))

    async def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """Walk over nothing: the file has no key of its own."""
        nothing: tuple[StoredObject, ...] = ()
        for described in nothing:
            yield described

    async def delete(self, key: str) -> None:
        self.path.unlink(missing_ok=True)

    async def presign(self, key: str, *, expires_s: int) -> str:
        raise Refused(f"{self.path} is not behind any server", field="key")

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        return []

    async def abort(self, upload: UnfinishedUpload) -> None:
        """There is none."""

    async def complete(self, upload: UnfinishedUpload, parts: Sequence[UploadedPart]) -> StoredObject | None:
        raise NotFound("a file has no unfinished uploads")

    async def mark_recovered(self, key: str) -> StoredObject:
        raise NotFound("a file has no unfinished uploads")

    async def check(self) -> None:
        self._status()

    async def close(self) -> None:
        """Nothing is held open."""


class _FileWriter:
    def __init__(self, storage: OneFile, file: BinaryIO, options: WriteOptions) -> None:
        self._storage = storage
        self._file = file
        self._options = options
        self._head: bytes | None = None
        self._digest = hashlib.sha256()
        self.sha256 = ""
        self._stored: StoredObject | None = None

    async def write(self, chunk: bytes | memoryview) -> None:
        self._digest.update(chunk)
        await asyncio.to_thread(self._file.write, chunk)

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        admit_copy(source, start, end)
        await copy_by_reading(self._storage, self, source, start, end)
        return 0

    async def prepend(self, head: bytes) -> None:
        admit_head(self._options, self._head)
        self._head = head

    async def end(self) -> None:
        """Put the head where it belongs."""
        self.sha256 = self._digest.hexdigest()
        if self._head is not None:
            await asyncio.to_thread(self._file.flush)
            self.sha256 = await asyncio.to_thread(put_first, self._file.fileno(), self._head)

    def finish(self, stored: StoredObject) -> None:
        self._stored = stored

    @property
    def stored(self) -> StoredObject:
        assert self._stored is not None  # only asked for after the context has ended well
        return self._stored


def _settle(file: BinaryIO) -> None:
    """Bring the bytes onto the disk: a name is given to them next."""
    file.flush()
    os.fsync(file.fileno())
