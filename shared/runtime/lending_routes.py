"""Objects of a directory store, lent to whoever holds a signed URL."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from shared.kernel.clock import Clock
from shared.kernel.errors import NotFound
from shared.runtime.errors import ERROR_ANSWERS
from shared.runtime.object_response import object_response
from shared.storage.port import Storage
from shared.storage.signature import verify_signature

MAX_MOMENT_MS = (1 << 63) - 1


def lending_router(storage: Storage, clock: Clock, *, signing_key: bytes) -> APIRouter:
    """Build `/media/{key}`, the address of `Storage.presign` where the store is a directory."""
    router = APIRouter(tags=["media"], responses=ERROR_ANSWERS)

    @router.head("/media/{key:path}", include_in_schema=False)
    @router.get("/media/{key:path}")
    async def lend_object(
        key: str,
        request: Request,
        expires: Annotated[int, Query(ge=0, le=MAX_MOMENT_MS)],
        signature: str,
    ) -> Response:
        """Send the object, with Range, while the signature holds. Needs no key."""
        if not verify_signature(key, expires, signature, signing_key, clock.now_ms()):
            # The same for an object that is not there: a stranger learns nothing of what is.
            raise NotFound("this URL was not given out by this server, or has expired")
        stored = await storage.head(key)
        content_type = stored.content_type or "application/octet-stream"
        return await object_response(request, storage, key, content_type=content_type)

    return router
