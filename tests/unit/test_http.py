"""The HTTP server around the services' routes: keys, limits, health, metrics, and one form of error."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict

from shared.events.fields import NAME, PATTERNS_IN_WORDS, Name, Wire
from shared.events.unreadable import MAX_PROBLEMS, FieldProblem, Unreadable
from shared.kernel.errors import (
    Bug,
    Conflict,
    Corrupt,
    NotFound,
    Refused,
    SpoolError,
    Transient,
    Unavailable,
)
from shared.runtime.api_key import KeyRing
from shared.runtime.body_limit import MAX_BODY_BYTES
from shared.runtime.http import build_app, listening_socket

KEY = "a-long-random-key"

ERRORS: dict[str, Exception] = {
    "unreadable": Unreadable((FieldProblem("id", "is bad"), FieldProblem("data.clipId", "is worse"))),
    "refused": Refused("must be later", field="endTimestampInMs"),
    "refused-whole": Refused("no"),
    "corrupt": Corrupt("is broken"),
    "not-found": NotFound("no clip a"),
    "conflict": Conflict("is there"),
    "transient": Transient("not now"),
    "unavailable": Unavailable("is away", hint="wait"),
    "bug": Bug("secret inner workings"),
    "unexpected": RuntimeError("secret inner workings"),
    "spool": SpoolError("of no kind"),
}


class Strict(Wire):
    model_config = ConfigDict(extra="forbid")


class Asked(Wire):
    clip_id: Name
    widths: tuple[int, ...] = ()
    strict: Strict = Strict()


def router() -> APIRouter:
    router = APIRouter()

    @router.get("/errors/{name}")
    async def fail(name: str) -> None:
        raise ERRORS[name]

    @router.post("/asked")
    async def ask(body: Asked, max_items: Annotated[int, Query(alias="maxItems", le=5)] = 1) -> Asked:
        return body

    @router.post("/raw")
    async def count(request: Request) -> int:
        return len(await request.body())

    return router


class Dependencies:
    """What is wrong with them, as a test sets it."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    async def __call__(self) -> dict[str, str]:
        return self.problems


@pytest.fixture
def dependencies() -> Dependencies:
    return Dependencies()


@pytest.fixture
async def anyone(dependencies: Dependencies) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app([router()], keys=KeyRing((KEY,)), readiness=dependencies)
    # A bug is answered and then raised on, for the server to log: here only the answer counts.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://spool") as client:
        yield client


@pytest.fixture
def client(anyone: httpx.AsyncClient) -> httpx.AsyncClient:
    anyone.headers["x-api-key"] = KEY
    return anyone


@pytest.mark.parametrize(
    "path", ["/metrics", "/docs", "/openapi.json", "/errors/refused", "/nowhere", "/health"]
)
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Basic !"}])
async def test_every_route_needs_a_key_even_one_that_is_not_there(
    anyone: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    answer = await anyone.get(path, headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error"] == "unauthorized"
    assert answer.headers["www-authenticate"].startswith("Basic ")


async def test_a_web_socket_needs_a_key_as_well(dependencies: Dependencies) -> None:
    app = build_app([router()], keys=KeyRing((KEY,)), readiness=dependencies)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/socket",
        "headers": [],
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)

    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 401)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_needs_no_key(anyone: httpx.AsyncClient, path: str) -> None:
    assert (await anyone.get(path)).status_code == 200


async def test_a_browser_may_show_the_key_as_a_password(anyone: httpx.AsyncClient) -> None:
    answer = await anyone.get("/docs", auth=("anyone", KEY))

    assert answer.status_code == 200


async def test_readiness_says_what_is_missing(anyone: httpx.AsyncClient, dependencies: Dependencies) -> None:
    dependencies.problems = {"bus": "is reconnecting"}

    ready, live = await anyone.get("/health/ready"), await anyone.get("/health/live")

    assert (ready.status_code, ready.json()) == (
        503,
        {"status": "not_ready", "problems": {"bus": "is reconnecting"}},
    )
    assert live.status_code == 200


async def test_metrics_are_those_of_prometheus(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# HELP " in answer.text


async def test_the_routes_are_described(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()

    assert {"/asked", "/health/live", "/metrics"} <= set(described["paths"])


@pytest.mark.parametrize(
    ("name", "answered", "message", "fields"),
    [
        ("unreadable", (422, "invalid_event"), "id: is bad; data.clipId: is worse", ["id", "data.clipId"]),
        ("refused", (422, "refused"), "endTimestampInMs: must be later", ["endTimestampInMs"]),
        ("refused-whole", (422, "refused"), "no", []),
        ("corrupt", (422, "refused"), "is broken", []),
        ("not-found", (404, "not_found"), "no clip a", []),
        ("conflict", (409, "conflict"), "is there", []),
        ("transient", (503, "unavailable"), "not now", []),
        ("unavailable", (503, "unavailable"), "is away (wait)", []),
        ("bug", (500, "internal"), "something is wrong inside Spool; its log says what", []),
        ("unexpected", (500, "internal"), "something is wrong inside Spool; its log says what", []),
        ("spool", (500, "internal"), "something is wrong inside Spool; its log says what", []),
    ],
)
async def test_every_error_has_one_form(
    client: httpx.AsyncClient, name: str, answered: tuple[int, str], message: str, fields: list[str]
) -> None:
    answer = await client.get(f"/errors/{name}")

    body = answer.json()
    assert (answer.status_code, body["error"]) == answered
    assert body["message"] == message
    assert [detail["field"] for detail in body["details"]] == fields
    assert set(body) == {"error", "message", "details"}
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)


@pytest.mark.parametrize(
    ("asked", "content", "answered", "fields"),
    [
        pytest.param("GET /nowhere", b"", (404, "not_found"), [], id="no such route"),
        pytest.param("GET /asked", b"", (405, "method_not_allowed"), [], id="other method"),
        pytest.param("POST /asked", b"{}", (422, "invalid_request"), ["clipId"], id="missing field"),
        pytest.param(
            "POST /asked?maxItems=6", b'{"clipId": "a"}', (422, "invalid_request"), ["maxItems"], id="query"
        ),
        pytest.param(
            "POST /asked",
            b'{"clipId": "a b", "widths": [1, "x"]}',
            (422, "invalid_request"),
            ["clipId", "widths.1"],
            id="several fields",
        ),
        pytest.param("POST /asked", b"", (422, "invalid_request"), ["body"], id="no body"),
        pytest.param("POST /asked", b'{"clipId"', (422, "invalid_request"), ["body"], id="not json"),
        pytest.param("POST /asked", b"[" * 100_000, (400, "bad_request"), [], id="nested"),
        pytest.param(
            "POST /asked",
            b'{"clipId": "a", "widths": [' + b'"x",' * 1000 + b"1]}",
            (422, "invalid_request"),
            [f"widths.{number}" for number in range(MAX_PROBLEMS)],
            id="many problems",
        ),
        pytest.param(
            "POST /asked", b'{"clipId": "\\ud800"}', (422, "invalid_request"), ["clipId"], id="surrogate"
        ),
    ],
)
async def test_a_request_that_cannot_be_read_is_told_by_field(
    client: httpx.AsyncClient, asked: str, content: bytes, answered: tuple[int, str], fields: list[str]
) -> None:
    method, path = asked.split()

    answer = await client.request(method, path, content=content, headers={"content-type": "application/json"})

    body = answer.json()
    assert (answer.status_code, body["error"]) == answered
    assert [detail["field"] for detail in body["details"]] == fields
    assert body["message"]


async def test_a_request_is_told_in_words_what_its_fields_have_to_be(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/asked?maxItems=many", json={"clipId": "a b", "widths": ["wide"], "strict": {"no": 1}}
    )

    told = {detail["field"]: detail["message"] for detail in answer.json()["details"]}
    assert told == {
        "maxItems": "has to be a whole number",
        "clipId": PATTERNS_IN_WORDS[NAME],
        "widths.0": "has to be a whole number",
        "strict.no": "there is no such field here; the API's description at /docs lists those that are",
    }


async def in_chunks(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(size_bytes // 1024):
        yield bytes(1024)


async def test_the_largest_body_is_taken(client: httpx.AsyncClient) -> None:
    declared = await client.post("/raw", content=bytes(MAX_BODY_BYTES))
    streamed = await client.post("/raw", content=in_chunks(MAX_BODY_BYTES))

    assert declared.json() == streamed.json() == MAX_BODY_BYTES


@pytest.mark.parametrize("path", ["/raw", "/asked"])
async def test_a_larger_body_is_refused_whether_it_says_so_or_not(
    client: httpx.AsyncClient, path: str
) -> None:
    declared = await client.post(path, content=bytes(MAX_BODY_BYTES + 1))
    streamed = await client.post(path, content=in_chunks(MAX_BODY_BYTES + 1024))

    assert [(answer.status_code, answer.json()["error"]) for answer in (declared, streamed)] == [
        (413, "too_large"),
        (413, "too_large"),
    ]


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000])
async def test_a_length_that_is_none_is_refused(client: httpx.AsyncClient, length: str) -> None:
    answer = await client.post("/raw", content=b"", headers={"content-length": length})

    assert answer.status_code == 413


def test_a_port_that_is_taken_is_refused_with_what_to_do() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(Refused, match=rf"127\.0\.0\.1:{port}.*SPOOL_HTTP_PORT"):
            listening_socket("127.0.0.1", port)


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(Refused, match="cannot listen"):
        listening_socket("203.0.113.1", 0)  # an address for documents: no machine has it


def test_a_port_of_ipv6_can_be_taken() -> None:
    if not socket.has_ipv6:
        pytest.fail("this Python has no IPv6")
    with listening_socket("::1", 0) as listener:
        assert listener.family == socket.AF_INET6
