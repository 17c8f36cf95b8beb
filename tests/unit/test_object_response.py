"""An object as an HTTP answer: whole or by range, cached by its ETag, or told why it cannot be had."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response

from shared.kernel.errors import NotFound, Unavailable
from shared.runtime.errors import answer_errors
from shared.runtime.object_response import CACHE_S, object_response
from shared.storage.port import Storage, StoredObject

CONTENT = bytes(range(100))
TAG = '"abc-1"'


class HeldObjects:
    """The part of a store that an answer needs, over objects held in memory."""

    def __init__(self, **contents: bytes) -> None:
        self._contents = contents
        self.away = False
        self.reads: list[tuple[int, int | None, str | None]] = []

    async def head(self, key: str) -> StoredObject:
        if self.away:
            raise Unavailable("the store is away")
        if key not in self._contents:
            raise NotFound(f"no object {key}")
        return StoredObject(key, len(self._contents[key]), "abc-1", 0)

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.reads.append((start, end, if_match))

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(start, end or 0, 7):
                yield self._contents[key][at : min(at + 7, end or 0)]

        yield chunks()


@pytest.fixture
def store() -> HeldObjects:
    return HeldObjects(clip=CONTENT, empty=b"")


@pytest.fixture
async def client(store: HeldObjects) -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()

    @router.api_route("/{key}", methods=["GET", "HEAD"])
    async def show(key: str, request: Request) -> Response:
        return await object_response(request, cast("Storage", store), key, content_type="video/mp4")

    app = FastAPI()
    app.include_router(router)
    answer_errors(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://spool") as client:
        yield client


async def test_an_object_is_sent_whole_and_may_be_kept_by_its_caller_alone(
    client: httpx.AsyncClient, store: HeldObjects
) -> None:
    answer = await client.get("/clip")

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert {
        name: answer.headers[name] for name in ("content-type", "content-length", "accept-ranges", "etag")
    } == {
        "content-type": "video/mp4",
        "content-length": "100",
        "accept-ranges": "bytes",
        "etag": TAG,
    }
    assert answer.headers["cache-control"] == f"private, max-age={CACHE_S}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert store.reads == [(0, 100, "abc-1")]


@pytest.mark.parametrize(
    ("headers", "start", "end"),
    [
        pytest.param({"range": "bytes=10-19"}, 10, 20, id="a-b"),
        pytest.param({"range": "bytes=90-"}, 90, 100, id="a-"),
        pytest.param({"range": "bytes=-5"}, 95, 100, id="-n"),
        pytest.param({"range": "bytes=0-0"}, 0, 1, id="one byte"),
        pytest.param({"range": "bytes=0-9", "if-range": TAG}, 0, 10, id="same version"),
    ],
)
async def test_a_range_is_read_and_sent_alone(
    client: httpx.AsyncClient, store: HeldObjects, headers: dict[str, str], start: int, end: int
) -> None:
    answer = await client.get("/clip", headers=headers)

    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/100"
    assert answer.headers["content-length"] == str(end - start)
    assert store.reads == [(start, end, "abc-1")]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"range": "bytes=0-1,5-6"}, id="several ranges"),
        pytest.param({"range": "bytes=0-9", "if-range": '"old"'}, id="another version"),
        pytest.param({"range": "bytes=0-9", "if-range": f"W/{TAG}"}, id="a weak tag"),
        pytest.param({"range": "bytes=0-9", "if-range": "Sun, 22 Nov 2026 18:00:00 GMT"}, id="a date"),
        pytest.param({"if-none-match": '"old"'}, id="another version known"),
    ],
)
async def test_everything_is_sent_where_a_part_would_be_wrong(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.get("/clip", headers=headers)

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("known", [TAG, f'"old", {TAG}', f"W/{TAG}", "*"])
@pytest.mark.parametrize("more", [{}, {"range": "bytes=0-9"}])
async def test_what_the_caller_knows_is_not_sent_again(
    client: httpx.AsyncClient, store: HeldObjects, known: str, more: dict[str, str]
) -> None:
    answer = await client.get("/clip", headers={"if-none-match": known, **more})

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == TAG
    assert store.reads == []


@pytest.mark.parametrize(
    ("key", "asked"), [("clip", "bytes=100-"), ("clip", "bytes=-0"), ("empty", "bytes=0-")]
)
async def test_a_range_outside_is_answered_with_the_size(
    client: httpx.AsyncClient, key: str, asked: str
) -> None:
    answer = await client.get(f"/{key}", headers={"range": asked})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{100 if key == 'clip' else 0}"
    assert answer.json()["error"] == "range_not_satisfiable"


async def test_head_tells_of_the_whole_object_and_reads_nothing(
    client: httpx.AsyncClient, store: HeldObjects
) -> None:
    answer = await client.head("/clip", headers={"range": "bytes=0-9"})

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "100"
    assert store.reads == []


async def test_an_empty_object_is_an_empty_answer(client: httpx.AsyncClient) -> None:
    answer = await client.get("/empty", headers={"range": "bytes=-5"})

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(("away", "status"), [(False, 404), (True, 503)])
async def test_an_object_that_cannot_be_had_is_told(
    client: httpx.AsyncClient, store: HeldObjects, away: bool, status: int
) -> None:
    store.away = away

    answer = await client.get("/gone")

    assert answer.status_code == status
    assert answer.json()["error"] in {"not_found", "unavailable"}
