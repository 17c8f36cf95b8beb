"""A directory as a store: `file:`. What a key names is a plain file below the root, for other programs too.

What it cannot promise: it needs hard links and `flock` (any local file system of Linux or macOS has them),
and a file that another program changes in place while it is read is noticed, not prevented.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

from shared.database.cancellation import to_the_end
from shared.kernel.clock import Clock
from shared.kernel.errors import SpoolError, Unavailable
from shared.observability.metrics import STORAGE_READ_BYTES
from shared.storage.doors import admit_expiry, admit_key, admit_options, admit_range
from shared.storage.drafts import Drafts
from shared.storage.folder import Folder, etag
from shared.storage.local_reader import FileReader
from shared.storage.local_recovery import complete_draft
from shared.storage.local_writer import FileWriter, described
from shared.storage.port import StoredObject, UnfinishedUpload, UploadedPart, WriteOptions, Writer
from shared.storage.signature import signed_url
from shared.storage.threads import Threads

_PAGE_KEYS = 256  # objects that one trip to a thread lists


class FileStorage:
    """The objects below one directory."""

    def __init__(self, root: Path, *, public_url: str, signing_key: bytes, clock: Clock) -> None:
        """Take a directory that is there; `open` makes it."""
        self._public_url = public_url
        self._signing_key = signing_key
        self._clock = clock
        self._folder = Folder(root)
        self._drafts = Drafts(self._folder)
        self._threads = Threads()
        self._bytes_read = 0

    @classmethod
    async def open(cls, root: Path, *, public_url: str, signing_key: bytes, clock: Clock) -> FileStorage:
        """Open the store, and make its directory if need be. Raises Unavailable.

        `public_url` is the HTTP server that honours the URLs of `presign`, signed with `signing_key`.
        """
        try:
            return await asyncio.to_thread(_opened, root, public_url, signing_key, clock)
        except OSError as error:
            raise Unavailable(
                f"{root}: {error.strerror}", hint="Spool needs a directory that it can write to"
            ) from error

    @property
    def bytes_read(self) -> int:
        return self._bytes_read

    async def head(self, key: str) -> StoredObject:
        admit_key(key)
        return await self._threads.run(key, lambda: self._head(key))

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        admit_key(key)
        admit_range(start, end)
        reader = FileReader(
            key, start=start, end=end, folder=self._folder, threads=self._threads, count=self._count
        )
        try:
            await reader.open(if_match)
            yield reader
        finally:
            reader.close()

    @asynccontextmanager
    async def writer(self, key: str, options: WriteOptions) -> AsyncIterator[Writer]:
        admit_key(key)
        admit_options(options)
        writer = FileWriter(
            key,
            options,
            storage=self,
            folder=self._folder,
            drafts=self._drafts,
            threads=self._threads,
            clock=self._clock,
        )
        try:
            await writer.begin()
            yield writer
            await writer.complete()
        finally:
            if not writer.is_complete:
                with suppress(SpoolError):  # the error that ended the writing is the one to tell
                    await to_the_end(writer.discard())

    async def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        found = self._folder.walk(prefix, after)
        while page := await self._threads.run(prefix, lambda: list(islice(found, _PAGE_KEYS))):
            for key, status in page:
                yield described(key, status, None)

    async def delete(self, key: str) -> None:
        admit_key(key)
        await self._threads.run(key, lambda: self._delete(key))

    async def presign(self, key: str, *, expires_s: int) -> str:
        admit_key(key)
        admit_expiry(expires_s)
        expires_ms = self._clock.now_ms() + expires_s * 1000
        return signed_url(self._public_url, key, expires_ms=expires_ms, signing_key=self._signing_key)

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        return await self._threads.run("uploads", lambda: self._drafts.unfinished(prefix))

    async def abort(self, upload: UnfinishedUpload) -> None:
        await self._threads.run(upload.key, lambda: self._drafts.discard(upload.upload_id))

    async def complete(
        self,
        upload: UnfinishedUpload,
        parts: Sequence[UploadedPart],  # noqa: ARG002 - what is confirmed lies beside the bytes
    ) -> StoredObject | None:
        return await self._threads.run(
            upload.key,
            lambda: complete_draft(
                upload.upload_id, folder=self._folder, drafts=self._drafts, clock=self._clock
            ),
        )

    async def mark_recovered(self, key: str) -> StoredObject:
        return await self.head(key)  # the mark came with the object

    async def check(self) -> None:
        if not await asyncio.to_thread(os.access, self._folder.root, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable(f"{self._folder.root} is not a directory that Spool can write to")

    async def close(self) -> None:
        await self._threads.close()

    def _head(self, key: str) -> StoredObject:
        status = self._folder.status(key)
        return described(key, status, self._drafts.read_label(key, etag(status)))

    def _delete(self, key: str) -> None:
        with self._drafts.turn():
            self._folder.remove(key)
            self._drafts.drop_stray_labels(key)

    def _count(self, size_bytes: int) -> None:
        self._bytes_read += size_bytes
        STORAGE_READ_BYTES.inc(size_bytes)


def _opened(root: Path, public_url: str, signing_key: bytes, clock: Clock) -> FileStorage:
    root.mkdir(parents=True, exist_ok=True)
    # The root itself may be reached through a link: whoever configures Spool chose it.
    return FileStorage(root.resolve(strict=True), public_url=public_url, signing_key=signing_key, clock=clock)
