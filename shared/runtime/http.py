"""The HTTP server of a process: health, metrics, keys and errors around the services' own routes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.kernel.errors import Refused
from shared.runtime.api_key import KeyRing
from shared.runtime.authentication import Authentication
from shared.runtime.body_limit import BodyLimit
from shared.runtime.errors import answer_errors
from shared.runtime.traced_requests import TracedRequests

BACKLOG = 256  # connections that wait to be accepted
DESCRIPTION = "Looks after recordings of calls, meetings and cameras for their whole life."

# What is wrong with each dependency, in words; empty when all is well.
Readiness = Callable[[], Awaitable[dict[str, str]]]


def build_app(routers: Sequence[APIRouter], *, keys: KeyRing, readiness: Readiness) -> FastAPI:
    """Put the routers behind keys, and health and metrics beside them."""
    app = FastAPI(title="Spool", description=DESCRIPTION, version="1", redoc_url=None)
    answer_errors(app)
    for router in (_health_router(readiness), _metrics_router(), *routers):
        app.include_router(router)
    app.add_middleware(BodyLimit)
    app.add_middleware(TracedRequests)
    app.add_middleware(Authentication, keys=keys)  # added last, so it is asked first
    return app


def _health_router(readiness: Readiness) -> APIRouter:
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    async def live() -> dict[str, str]:
        """Answer as long as the process can."""
        return {"status": "live"}

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """Answer 200 when bus, database and store are there and work is taken; else 503 and why."""
        problems = await readiness()
        status = 503 if problems else 200
        body = {"status": "not_ready" if problems else "ready", "problems": problems}
        return JSONResponse(body, status_code=status)

    return router


def _metrics_router() -> APIRouter:
    router = APIRouter(tags=["metrics"])

    @router.get("/metrics")
    async def metrics() -> Response:
        """Tell everything that is counted, for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def listening_socket(host: str, port: int) -> socket.socket:
    """Take the port before anything else is started. Raises Refused when somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # so that nobody is turned away while the rest is started
    except OSError as error:
        listener.close()
        hint = "choose another SPOOL_HTTP_HOST, or another SPOOL_HTTP_PORT: 0 takes a free one"
        raise Refused(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
    return listener


class Server(uvicorn.Server):
    """Uvicorn inside a process that has its own way to stop."""

    def __init__(self, app: FastAPI, *, grace_s: int) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=grace_s
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the drain decides when the server stops."""
        yield

    def stop(self) -> None:
        """Let `serve` return after the requests under way."""
        self.should_exit = True
