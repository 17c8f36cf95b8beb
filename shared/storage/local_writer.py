"""One object on its way into a file store: a draft that becomes visible in a single step."""

from __future__ import annotations

import hashlib
import os
import secrets
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from shared.kernel.clock import Clock
from shared.kernel.errors import Bug, Conflict
from shared.kernel.ids import new_id
from shared.observability.metrics import STORAGE_WRITTEN_BYTES
from shared.storage.copying import copy_by_reading
from shared.storage.doors import RECOVERED, RECOVERED_NAME, admit_copy, admit_head
from shared.storage.drafts import Drafts, Intent, Label
from shared.storage.folder import Folder, etag
from shared.storage.head import put_first
from shared.storage.port import Storage, StoredObject, UploadedPart, WriteOptions
from shared.storage.threads import Threads

T = TypeVar("T")

_BUFFER_BYTES = 1 << 20  # what one trip to a thread is worth


class FileWriter:
    """Writes a draft beside the objects, and names it at the end."""

    def __init__(
        self,
        key: str,
        options: WriteOptions,
        *,
        storage: Storage,
        folder: Folder,
        drafts: Drafts,
        threads: Threads,
        clock: Clock,
    ) -> None:
        """Prepare; nothing is on the disk before `begin`."""
        self._key = key
        self._options = options
        self._storage = storage
        self._folder = folder
        self._drafts = drafts
        self._threads = threads
        self._clock = clock
        self._upload_id = new_id(clock)
        self._descriptor: int | None = None
        self._buffer = bytearray()
        self._parts = 0
        self._head: bytes | None = None
        self._sha256 = hashlib.sha256()
        self._stored: StoredObject | None = None

    @property
    def stored(self) -> StoredObject:
        if self._stored is None:
            raise Bug(f"{self._key} was asked for before it was complete")
        return self._stored

    @property
    def is_complete(self) -> bool:
        return self._stored is not None

    async def begin(self) -> None:
        """Write down what is about to come, and remove what a superseded attempt at the same work left."""
        await self._run(self._begin)

    async def write(self, chunk: bytes | memoryview) -> None:
        view = memoryview(chunk).cast("B")
        for start in range(0, len(view), _BUFFER_BYTES):
            self._buffer += view[start : start + _BUFFER_BYTES]
            if len(self._buffer) >= _BUFFER_BYTES:
                await self._run(self._flush)

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        # A file system could share the bytes of both files; then nobody would know their digest.
        admit_copy(source, start, end)
        await copy_by_reading(self._storage, self, source, start, end)
        return 0

    async def prepend(self, head: bytes) -> None:
        admit_head(self._options, self._head)
        self._head = head

    async def complete(self) -> None:
        """Make the object visible, unless a condition fails. Raises Conflict."""
        if self._options.head_last and self._head is None:
            raise Bug(f"{self._key} was to get its head last, and got none")
        sealed = await self._run(self._seal)
        if self._options.before_completion:
            await self._options.before_completion()
        await self._run(lambda: self._publish(sealed))

    async def discard(self) -> None:
        """Leave nothing behind."""
        await self._run(self._discard)

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._threads.run(self._key, call)

    def _begin(self) -> None:
        for upload in self._drafts.unfinished(self._key):
            if (
                upload.key == self._key
                and not upload.is_capture
                and _supersedes(self._options.owner, upload.owner)
            ):
                self._drafts.discard(upload.upload_id)
        intent = Intent(
            self._key,
            self._clock.now_ms(),
            self._options.owner,
            self._options.content_type,
            dict(self._options.metadata),
            self._options.is_capture,
        )
        self._descriptor = self._drafts.begin(self._upload_id, intent)

    def _flush(self) -> None:
        assert self._descriptor is not None, "a draft is begun before it is written"
        self._sha256.update(self._buffer)
        STORAGE_WRITTEN_BYTES.inc(len(self._buffer))
        rest = memoryview(self._buffer)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        rest.release()
        if self._options.is_capture and self._buffer:
            self._confirm()
        self._buffer = bytearray()

    def _confirm(self) -> None:
        """Make the part durable before it is written down that it is."""
        assert self._descriptor is not None, "a draft is begun before it is written"
        os.fsync(self._descriptor)
        self._parts += 1
        checksum = zlib.crc32(self._buffer)
        part = UploadedPart(self._parts, len(self._buffer), f"{checksum:08x}", checksum)
        self._drafts.confirm(self._upload_id, part)

    def _seal(self) -> StoredObject:
        """Make the bytes durable, and keep beside them what is known of them."""
        self._flush()
        assert self._descriptor is not None, "a draft is begun before it is sealed"
        sha256 = self._sha256.hexdigest()
        if self._head is not None:
            sha256 = put_first(self._descriptor, self._head)
            STORAGE_WRITTEN_BYTES.inc(len(self._head))
        stamp(self._descriptor, self._clock.now_ms())
        status = os.fstat(self._descriptor)
        self._close()
        label = Label(self._options.content_type, sha256, dict(self._options.metadata))
        self._drafts.label(self._upload_id, self._key, etag(status), label)
        return described(self._key, status, label)

    def _publish(self, sealed: StoredObject) -> None:
        data = self._drafts.data_path(self._upload_id)
        with self._drafts.turn():
            before = self._current_etag()
            if self._options.if_match is not None and before != self._options.if_match:
                raise Conflict(f"{self._key} is no longer what was to be replaced")
            place = self._folder.link if self._options.if_absent else self._folder.replace
            place(data, self._key)
        self._stored = sealed

        # The object stands. What cannot be tidied now is found by its intent.
        with suppress(OSError):
            if before is not None:
                self._drafts.drop_stray_labels(self._key)
            self._drafts.finish(self._upload_id)

    def _current_etag(self) -> str | None:
        try:
            return etag(self._folder.status(self._key))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _discard(self) -> None:
        self._close()
        if not self._parts:  # what was captured once cannot be made again: the sweeper completes it
            self._drafts.discard(self._upload_id)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def stamp(descriptor: int, now_ms: int) -> None:
    """Give a file its time, which is a part of its ETag, and make it durable."""
    # File systems keep time in ticks of some milliseconds; two versions written within
    # one tick must differ all the same, so the nanoseconds are drawn.
    written_ns = now_ms * 1_000_000 + secrets.randbelow(1_000_000)
    os.utime(descriptor, ns=(written_ns, written_ns))
    os.fsync(descriptor)


def described(key: str, status: os.stat_result, label: Label | None) -> StoredObject:
    """Say what a file store knows of an object."""
    return StoredObject(
        key=key,
        size_bytes=status.st_size,
        etag=etag(status),
        modified_ms=status.st_mtime_ns // 1_000_000,
        content_type=label.content_type if label else None,
        sha256=label.sha256 if label else None,
        is_recovered=label is not None and label.metadata.get(RECOVERED_NAME) == RECOVERED,
    )


def _supersedes(ours: tuple[int, int] | None, theirs: tuple[int, int] | None) -> bool:
    """Say whether both are claims on the same work and ours is the later one. Tokens grow with each claim."""
    return ours is not None and theirs is not None and ours[0] == theirs[0] and theirs[1] < ours[1]
