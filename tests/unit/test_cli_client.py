"""The HTTP client of the command line, against answers as a server gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shared.kernel.errors import Conflict, Corrupt, NotFound, Refused, SpoolError, Unavailable
from shared.observability.tracing import TraceContext, read_headers
from shared.settings.settings import Settings
from spool.client import Address, KeyRefused, NotRunning, SentEvent, SpoolClient, find_spool

HERE = Address("http://127.0.0.1:8080", "a-key-of-sixteen-characters")
Answer = Callable[[httpx.Request], httpx.Response]


def _client(answer: Answer) -> SpoolClient:
    return SpoolClient(HERE, transport=httpx.MockTransport(answer))


def _settings(directory: Path, **given: str) -> Settings:
    return Settings(data_directory=directory, **given)  # type: ignore[arg-type]  # strings only, and pydantic checks


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_be_another_address_is_no_id(name: str) -> None:
    async with _client(lambda _: httpx.Response(200, json={})) as client:
        with pytest.raises(Refused, match="is not an id"):
            await client.one_work(name)


async def test_every_request_shows_the_key() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"clips": [], "nextPageToken": None})

    async with _client(answer) as client:
        await client.clips({"cameraId": "door", "status": None, "maxItems": 5})

    assert seen[0].headers["x-api-key"] == HERE.api_key
    assert dict(seen[0].url.params) == {"cameraId": "door", "maxItems": "5"}


async def test_all_requests_of_one_command_belong_to_one_trace() -> None:
    seen: list[TraceContext | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(read_headers(request.headers))
        return httpx.Response(200, json={"clips": [], "nextPageToken": None})

    for _ in range(2):
        async with _client(answer) as client:
            await client.clips({})
            await client.clips({})

    traces = [trace.trace_id for trace in seen if trace]
    assert len(traces) == 4
    assert (traces[0], traces[2]) == (traces[1], traces[3])
    assert traces[0] != traces[2]


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        pytest.param(
            422,
            {
                "error": "invalid_event",
                "message": "not acceptable",
                "details": [{"field": "data.cameraId", "message": "is missing"}],
            },
            Refused,
            "not acceptable: data.cameraId: is missing",
            id="fields-that-the-message-leaves-out",
        ),
        pytest.param(
            422,
            {
                "error": "refused",
                "message": "data.cameraId: is missing",
                "details": [{"field": "data.cameraId", "message": "is missing"}],
            },
            Refused,
            "data.cameraId: is missing",
            id="fields-are-not-said-twice",
        ),
        pytest.param(
            404, {"error": "not_found", "message": "no clip x"}, NotFound, "no clip x", id="not-there"
        ),
        pytest.param(409, {"error": "conflict", "message": "is done"}, Conflict, "is done", id="conflict"),
        pytest.param(
            401, {"error": "key", "message": "no key"}, KeyRefused, "SPOOL_API_KEY", id="key-refused"
        ),
        pytest.param(
            503, {"error": "unavailable", "message": "bus away"}, Unavailable, "/health/ready", id="away"
        ),
        pytest.param(404, [1], Refused, "perhaps no Spool", id="another-server"),
    ],
)
async def test_an_error_of_the_server_says_what_to_do(
    status: int, body: object, error: type[SpoolError], words: str
) -> None:
    async with _client(lambda _request: httpx.Response(status, json=body)) as client:
        with pytest.raises(SpoolError) as raised:
            await client.clip("x")

    assert words in str(raised.value)
    if words != "perhaps no Spool":
        assert isinstance(raised.value, error)


async def test_a_page_of_another_server_is_not_taken_for_an_answer() -> None:
    async with _client(lambda _request: httpx.Response(200, text="<html>hello</html>")) as client:
        with pytest.raises(Corrupt, match="is it a Spool"):
            await client.clips({})


async def test_an_id_cannot_become_another_address() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(200, json={})

    async with _client(answer) as client:
        await client.clip("../../metrics?x=1")

    assert seen == ["/api/v1/clips/..%2F..%2Fmetrics%3Fx%3D1"]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(httpx.ConnectError("refused"), id="nobody-listens"),
        pytest.param(httpx.ConnectTimeout("slow"), id="no-connection-in-time"),
    ],
)
async def test_nothing_running_tells_the_address_that_was_tried(error: httpx.TransportError) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise error

    async with _client(answer) as client:
        with pytest.raises(NotRunning, match=r"http://127\.0\.0\.1:8080.*spool up"):
            await client.clips({})


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8080", "http://[::1", "http://a b:1x"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises((Refused, NotRunning)):
        async with SpoolClient(Address(url, None)) as client:
            await client.clips({})


def _stream(*events: tuple[str, dict[str, str]]) -> httpx.Response:
    text = ": a sign of life\n\n" + "".join(f"id: {c}\ndata: {json.dumps(e)}\n\n" for c, e in events)
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


async def test_the_stream_gives_each_event_with_its_cursor() -> None:
    async with _client(lambda _request: _stream(("7", {"id": "a"}), ("8", {"id": "b"}))) as client:
        events = [sent async for sent in client.stream()]

    assert events == [SentEvent("7", {"id": "a"}), SentEvent("8", {"id": "b"})]


async def test_an_event_of_several_data_lines_is_one_event() -> None:
    text = 'id: 1\ndata: {"id":\ndata: "a"}\n\n'

    async with _client(lambda _request: httpx.Response(200, text=text)) as client:
        events = [sent async for sent in client.stream()]

    assert events == [SentEvent("1", {"id": "a"})]


async def test_following_continues_after_the_last_event_when_the_server_went_away() -> None:
    asked: list[str | None] = []
    gaps: list[str] = []  # a server that is away is told once

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("after"))
        match len(asked):
            case 1:
                return _stream(("7", {"id": "a"}))
            case 2:
                raise httpx.ConnectError("it restarts")
            case _:
                return _stream(("8", {"id": "b"}))

    async with _client(answer) as client:
        follow = client.follow(after="6", on_missing=lambda error: gaps.append(str(error)))
        first, second = await anext(follow), await anext(follow)
        await follow.aclose()

    assert (first.event["id"], second.event["id"]) == ("a", "b")
    assert asked == ["6", "7", "7"]
    assert len(gaps) == 1


def test_the_running_spool_is_found_by_its_data_directory(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text('{"url": "http://127.0.0.1:4711"}')
    (tmp_path / "api-key").write_text("kept-key-of-this-directory\n")

    assert find_spool(_settings(tmp_path)) == Address("http://127.0.0.1:4711", "kept-key-of-this-directory")


def test_nothing_running_names_the_directory_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="spool up") as raised:
        find_spool(_settings(tmp_path / "nowhere"))

    assert str(tmp_path / "nowhere") in str(raised.value)


def test_a_kept_key_is_shown_to_no_other_machine(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("kept-key-of-this-directory\n")

    elsewhere = find_spool(_settings(tmp_path, url="https://spool.example.org"))
    next_door = find_spool(_settings(tmp_path, url="http://localhost:9"))

    assert elsewhere.api_key is None
    assert next_door.api_key == "kept-key-of-this-directory"


def test_a_given_key_wins_over_the_kept_one(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text('{"url": "http://127.0.0.1:4711"}')
    (tmp_path / "api-key").write_text("kept-key-of-this-directory\n")

    assert find_spool(_settings(tmp_path, api_key="another")).api_key == "another"


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_damaged_note_of_the_running_spool_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "running.json").write_text(content)

    with pytest.raises(Corrupt, match=r"running\.json"):
        find_spool(_settings(tmp_path))
