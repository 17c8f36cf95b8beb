"""Each request to a route of ours is a hop: it goes on with its caller's trace, and so does all it writes."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.observability.tracing import Hop, Role, hop, read_headers

TRACED_PREFIXES = ("/api/", "/media/")  # not what a monitor asks every few seconds


class TracedRequests:
    """ASGI middleware. Behind the authentication, so that strangers begin no spans.

    Each answer says in `traceresponse` under which trace it is to be found.
    https://w3c.github.io/trace-context/#traceresponse-header
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(TRACED_PREFIXES):
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        caller = read_headers(Headers(scope=scope))
        with hop(f"{method} request", Role.SERVER, parent=caller, method=method, path=scope["path"]) as span:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _tell(span, message)
                await send(message)

            try:
                await self._app(scope, receive, answer)
            finally:
                # Known when the router has chosen: a name that is bounded, unlike the path.
                route = getattr(scope.get("route"), "path", None)
                if route:
                    span.rename(f"{method} {route}")
                    span.note(route=route)


def _tell(span: Hop, message: Message) -> None:
    status = message["status"]
    span.note(status_code=status)
    if status >= 500:
        span.fail(f"answered {status}")
    MutableHeaders(scope=message)["traceresponse"] = span.context.traceparent
