"""Every route asks for a key; only health, and URLs that carry a signature, do not."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.runtime.api_key import KeyRing, shown_key
from shared.runtime.errors import error_answer

OPEN_PREFIXES = ("/health/", "/media/")  # /media/ checks the signature in the URL itself


class Authentication:
    """ASGI middleware: 401 without an accepted key. It knows no route, so no new route can forget it."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith(OPEN_PREFIXES):
            await self._app(scope, receive, send)
            return
        shown = shown_key(dict(scope["headers"]))
        if shown is None or not self._keys.accepts(shown):
            message = "this route needs a key: send it in the header x-api-key"
            # A browser asks for a password then: the key, whatever the name.
            headers = {"www-authenticate": 'Basic realm="Spool, the key as password"'}
            await error_answer(401, "unauthorized", message, headers=headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)
