"""Bytes of one object appended to another by reading them: wherever a store cannot copy by itself."""

from __future__ import annotations

from shared.storage.port import Storage, StoredObject, Writer


async def copy_by_reading(
    storage: Storage, writer: Writer, source: StoredObject, start: int, end: int
) -> None:
    """Append the bytes [start, end) of `source`, an object of `storage`.

    Raises Conflict when it no longer has its ETag, NotFound, Corrupt when it ends before `end`, Unavailable.
    """
    if start == end:
        return
    async with storage.read(source.key, start=start, end=end, if_match=source.etag) as chunks:
        async for chunk in chunks:
            await writer.write(chunk)
