"""No request body is read beyond what an event can be."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.runtime.errors import error_answer

MAX_BODY_BYTES = 512 * 1024  # twice an event: the bus refuses more anyway
MAX_DIGITS = 19  # of a declared length: Python counts no further than a few thousand
TOO_LARGE = f"a body has at most {MAX_BODY_BYTES} bytes"


class BodyLimit:
    """ASGI middleware: 413 for a body that says or turns out to be too large.

    FastAPI has a limit as well (`max_body_size`), but answers in plain text, not in the one form of errors.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > MAX_DIGITS or int(declared) > MAX_BODY_BYTES:
            await error_answer(413, "too_large", TOO_LARGE)(scope, receive, send)
            return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                # Ends the route where it reads its body; the rest is never read.
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, counted, send)
