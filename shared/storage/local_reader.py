"""One object on its way out of a file store, by range."""

from __future__ import annotations

import os
from collections.abc import Callable

from shared.kernel.errors import Conflict, Corrupt
from shared.storage.doors import CHUNK_BYTES
from shared.storage.folder import Folder, etag
from shared.storage.threads import Threads


class FileReader:
    """Chunks of one file. One that is replaced meanwhile is read to its end as it was when it was opened."""

    def __init__(
        self,
        key: str,
        *,
        start: int,
        end: int | None,
        folder: Folder,
        threads: Threads,
        count: Callable[[int], None],
    ) -> None:
        """Prepare to read; `count` is told how many bytes came."""
        self._key = key
        self._position = start
        self._wanted_end = end
        self._end = start
        self._folder = folder
        self._threads = threads
        self._count = count
        self._etag = ""
        self._descriptor: int | None = None

    async def open(self, if_match: str | None) -> None:
        """Open the file. Raises NotFound, Conflict or Corrupt."""
        await self._threads.run(self._key, self._open)
        assert self._descriptor is not None, "an open file has a descriptor"
        size_bytes = os.fstat(self._descriptor).st_size
        if if_match is not None and self._etag != if_match:
            raise Conflict(f"{self._key} changed since it was looked at")
        self._end = size_bytes if self._wanted_end is None else self._wanted_end
        if max(self._end, self._position) > size_bytes:
            wanted = max(self._end, self._position)
            raise Corrupt(f"{self._key} ends at byte {size_bytes}, before byte {wanted}")

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __aiter__(self) -> FileReader:
        return self

    async def __anext__(self) -> bytes:
        if self._position >= self._end:
            raise StopAsyncIteration
        chunk = await self._threads.run(self._key, self._read)
        self._position += len(chunk)
        self._count(len(chunk))
        return chunk

    def _open(self) -> None:
        # Kept at once: a cancelled caller closes it although it never saw it.
        self._descriptor = self._folder.open(self._key)
        self._etag = etag(os.fstat(self._descriptor))

    def _read(self) -> bytes:
        assert self._descriptor is not None, "a reader is open while it is read"
        chunk = os.pread(self._descriptor, min(CHUNK_BYTES, self._end - self._position), self._position)
        if etag(os.fstat(self._descriptor)) != self._etag:
            raise Conflict(f"{self._key} was changed in place while it was read")
        if not chunk:
            raise Corrupt(f"{self._key} ends at byte {self._position}, before byte {self._end}")
        return chunk
