"""An object of the store as an HTTP answer: by range, private, and not sent again when it is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from shared.runtime.byte_range import Unsatisfiable, requested_range
from shared.runtime.errors import error_answer
from shared.storage.port import Storage, StoredObject

CACHE_S = 3600  # a finished object never changes under its ETag; callers may ask again after an hour


async def object_response(request: Request, storage: Storage, key: str, *, content_type: str) -> Response:
    """Answer GET or HEAD with the object: 200, 206, 304 or 416. Raises NotFound or Unavailable."""
    stored = await storage.head(key)
    headers = {
        "accept-ranges": "bytes",
        "cache-control": f"private, max-age={CACHE_S}",
        "etag": _quoted(stored.etag),
        "x-content-type-options": "nosniff",
    }
    if _knows(request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=304, headers=headers)
    try:
        asked = requested_range(_range_header(request, headers["etag"]), stored.size_bytes)
    except Unsatisfiable as error:
        size = {"content-range": f"bytes */{stored.size_bytes}"}
        return error_answer(416, "range_not_satisfiable", str(error), headers=size)

    start, end = asked or (0, stored.size_bytes)
    headers["content-length"] = str(end - start)
    if asked:
        headers["content-range"] = f"bytes {start}-{end - 1}/{stored.size_bytes}"
    status = 206 if asked else 200
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers, media_type=content_type)
    body = await _opened(_stream(storage, stored, start, end))
    return StreamingResponse(body, status_code=status, headers=headers, media_type=content_type)


async def _opened(stream: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """Return the stream once its first bytes are here: until then an error can still be an answer."""
    first = await anext(stream)

    async def whole() -> AsyncIterator[bytes]:
        async with aclosing(stream):
            yield first
            async for chunk in stream:
                yield chunk

    return whole()


async def _stream(
    storage: Storage, stored: StoredObject, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    async with storage.read(stored.key, start=start, end=end, if_match=stored.etag) as chunks:
        async for chunk in chunks:
            yield chunk


def _range_header(request: Request, etag: str) -> str | None:
    """Return the Range header, unless If-Range says that the caller holds another version.

    Only GET has ranges (RFC 9110, section 14.2).
    """
    if request.method != "GET":
        return None
    condition = request.headers.get("if-range")
    return request.headers.get("range") if condition in (None, etag) else None


def _knows(if_none_match: str | None, etag: str) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in known or known == ["*"]


def _quoted(etag: str) -> str:
    return '"' + etag.strip('"') + '"'
