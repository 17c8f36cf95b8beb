"""What every store promises. `tests/contract/test_storage.py` holds each of them to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

COPIED_BYTES = 5 << 20  # the least that a store copies by itself: S3 has no smaller parts but the last


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store knows of an object without reading it."""

    key: str
    size_bytes: int
    etag: str  # opaque: changes whenever the bytes may have changed
    modified_ms: int
    content_type: str | None = None
    sha256: str | None = None  # hex, when the store was told
    crc32: str | None = None  # hex, of all bytes, when the store knows it
    is_recovered: bool = False  # made of what a dead writer had sent; whatever came after that is missing


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part of an upload that the store has confirmed."""

    number: int  # from 1
    size_bytes: int
    etag: str
    crc32: int | None  # when the store was told, or told it


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """Bytes of an object that never became visible."""

    key: str
    upload_id: str
    started_ms: int
    owner: tuple[int, int] | None = None  # (inbox row, token), where the store itself remembers it
    is_capture: bool | None = None  # as in its options, where the store itself remembers it


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How an object is written.

    `owner` is (inbox row, token): who writes it, for the sweeper of unfinished uploads.
    `before_completion` is awaited just before the object would become visible; if it raises, nothing does.
    At most one of the conditions is set: `if_absent`, or `if_match` with the ETag of what is replaced.
    `head_last` says that the beginning is known last, and comes by `Writer.prepend`.
    `is_capture` says that the bytes come once and play from the first of them on, however many follow: when
    the writer dies, the sweeper completes what is there. Anything else is made again, and is aborted.
    """

    content_type: str = "application/octet-stream"
    if_absent: bool = False
    if_match: str | None = None
    owner: tuple[int, int] | None = None
    before_completion: Callable[[], Awaitable[None]] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    head_last: bool = False
    is_capture: bool = False


class Writer(Protocol):
    """One object being written. Memory is bounded whatever the length."""

    async def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes. Waits when the store is slower than the caller."""
        ...

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        """Append the bytes [start, end) of an object of the same store.

        Returns how many of them the store copied by itself: those were neither read nor sent here. Ranges
        shorter than `COPIED_BYTES` are read, and so is what the store cannot copy.
        Raises Conflict when the object no longer has its ETag, NotFound, Corrupt when it ends before `end`,
        Unavailable.
        """
        ...

    async def prepend(self, head: bytes) -> None:
        """Put bytes before all others: once, after the last of them, with the option `head_last` only."""
        ...

    @property
    def stored(self) -> StoredObject:
        """The finished object, with its size, ETag and digests; only after the context has ended well.

        Its SHA-256 is known when all bytes came here in their order; otherwise its CRC32 is, unless a store
        copied some of them and did not tell theirs.
        """
        ...


class Storage(Protocol):
    """A store that is open: a directory or a bucket, under one prefix. Keys are as `kernel.keys` allows."""

    @property
    def bytes_read(self) -> int:
        """Bytes of object bodies received since the store was opened."""
        ...

    async def head(self, key: str) -> StoredObject:
        """Describe an object. Raises NotFound or Unavailable."""
        ...

    def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the bytes from `start` up to but not including `end`, in chunks of at most 1 MiB.

        Raises NotFound; Conflict when the object no longer has the ETag `if_match`; Corrupt when the object
        ends before `end`; Unavailable when the store stays away after retries.
        """
        ...

    def writer(self, key: str, options: WriteOptions) -> AbstractAsyncContextManager[Writer]:
        """Write an object of unknown length.

        Nothing is visible under `key` until the context ends without an error, and then all of it is.
        Ending with an error leaves nothing behind, but of a capture what the sweeper completes.
        Raises Conflict when a condition of the options fails.
        """
        ...

    def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """Walk over finished objects whose key starts with `prefix` and sorts after `after`, in key order."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object. One that is not there is fine."""
        ...

    async def presign(self, key: str, *, expires_s: int) -> str:
        """Return a URL by which anyone can GET the object, with Range, until it expires."""
        ...

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        """List uploads below `prefix` that were begun and neither completed nor aborted, ours and others'."""
        ...

    async def abort(self, upload: UnfinishedUpload) -> None:
        """Discard an unfinished upload with all its bytes. One that is gone is fine."""
        ...

    async def complete(self, upload: UnfinishedUpload, parts: Sequence[UploadedPart]) -> StoredObject | None:
        """Make an object of an upload whose writer is dead: of its parts up to the first that is missing.

        `parts` are those that a journal knows; the store adds what it knows itself. Returns None, and leaves
        the upload as it is, when there is no part. Raises NotFound when the upload has ended already,
        Conflict when there is another object at its key, Corrupt, Unavailable.
        """
        ...

    async def mark_recovered(self, key: str) -> StoredObject:
        """Let the metadata say that the writer died, unless they do. Raises NotFound, Conflict."""
        ...

    async def check(self) -> None:
        """Return when the store answers and its bucket or directory is there.

        Raises Unavailable, or Refused when the store does not accept who we are.
        """
        ...

    async def close(self) -> None: ...
