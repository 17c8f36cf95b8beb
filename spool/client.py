"""The HTTP client of a running Spool, through which the service verbs of the command line talk."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias
from urllib.parse import quote, urlsplit

import httpx

from shared.kernel.errors import Conflict, Corrupt, NotFound, Permanent, Refused, Unavailable, words_of
from shared.observability.tracing import next_hop
from shared.runtime.api_key import key_file
from shared.settings.settings import Settings
from spool.running_file import running_url

CONNECT_S = 5.0  # somebody waits at a terminal
ANSWER_S = 30.0
SILENCE_S = 60.0  # of an event stream: the server sends a sign of life more often than this
MISSING_S = 30.0  # how long a stream waits for a server that restarts
RETRY_S = 0.5
CHUNK_BYTES = 256 * 1024

# The API's JSON as it came: the command line shows it and does not interpret more than it must.
JsonObject: TypeAlias = dict[str, Any]
Parameters: TypeAlias = Mapping[str, str | int | None]


class NotRunning(Unavailable):
    """No Spool answers at the address."""


class KeyRefused(Permanent):
    """The API key is missing or not one of the server's."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Spool answers, and the key to it."""

    url: str
    api_key: str | None


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event of the stream, and the place in the stream to continue after."""

    cursor: str
    event: JsonObject


def find_spool(settings: Settings) -> Address:
    """Return the address of the Spool that the settings, or else the data directory, name.

    A server on the same directory leaves its URL and its key there; the kept key goes to no other machine.
    Raises NotRunning.
    """
    directory = settings.data_directory
    url = settings.url or running_url(directory)
    if url is None:
        raise NotRunning(
            f"no Spool runs on {directory}/",
            hint="start one with 'spool up', or name one with --url or SPOOL_URL=http://host:8080",
        )
    if settings.api_key is not None or not _is_this_machine(url):
        return Address(url.rstrip("/"), settings.api_key)
    return Address(url.rstrip("/"), _kept_key(directory))


def _is_this_machine(url: str) -> bool:
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    except ValueError:  # not a URL at all: the client says so
        return False


def _kept_key(directory: Path) -> str | None:
    """Read the key that the first start made. Another Spool's key may be in no file of ours."""
    try:
        return key_file(directory).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


class SpoolClient:
    """One connection to a running Spool, as an async context manager.

    Every method raises NotRunning, KeyRefused, Refused (with the fields), NotFound, Conflict or Unavailable.
    """

    def __init__(self, address: Address, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Prepare a client; nothing is sent yet. Tests bring their own `transport`."""
        self.address = address
        try:
            self._http = httpx.AsyncClient(
                base_url=address.url,
                # One trace for one use of the command line, found again in the logs of Spool.
                headers=next_hop(None).headers | ({"x-api-key": address.api_key} if address.api_key else {}),
                timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
                transport=transport,
                trust_env=False,  # a proxy for the internet is not the way to a Spool next door
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise Refused(f"{address.url!r} is not a URL: {error}", hint="write http://host:8080") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    async def publish(self, event: Mapping[str, Any]) -> JsonObject:
        """Hand over a CloudEvent; it is durable when this returns its id."""
        return await self._json("POST", "/api/v1/events", body=event)

    async def events(self, *, after: str | None = None, max_items: int | None = None) -> JsonObject:
        """Return `{events: [{cursor, sentAt, event}], nextPageToken}`."""
        return await self._json("GET", "/api/v1/events", {"after": after, "maxItems": max_items})

    async def stream(
        self, *, after: str | None = None, on_open: Callable[[], None] | None = None
    ) -> AsyncGenerator[SentEvent]:
        """Yield events as they are sent, until the server ends the stream: those after `after`, or from now.

        `on_open` is called once the server has answered.
        """
        parameters = {"after": after} if after is not None else {}
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        async with self._response("GET", "/api/v1/events/stream", parameters, timeout=timeout) as response:
            if on_open:
                on_open()
            async for event in _read_events(response):
                yield event

    async def follow(
        self, *, after: str | None = None, on_missing: Callable[[Exception], None] | None = None
    ) -> AsyncGenerator[SentEvent]:
        """Yield events for ever: a server that goes away is awaited for MISSING_S, and continued after.

        After the first event none is skipped. The first connection has to succeed at once; of each gap
        later on `on_missing` hears once.
        """
        cursor, patience = after, _Patience(on_missing)
        while True:
            try:
                async for sent in self.stream(after=cursor, on_open=patience.renew):
                    cursor = sent.cursor
                    yield sent
            except Unavailable as error:
                if not patience.lasts(error):
                    raise
            await asyncio.sleep(RETRY_S)

    async def clips(self, filters: Parameters) -> JsonObject:
        """Return `{clips: […], nextPageToken}`."""
        return await self._json("GET", "/api/v1/clips", filters)

    async def clip(self, clip_id: str) -> JsonObject:
        return await self._json("GET", f"/api/v1/clips/{_segment(clip_id)}")

    async def work(self, filters: Parameters) -> JsonObject:
        """Return `{work: […], nextPageToken}`."""
        return await self._json("GET", "/api/v1/work", filters)

    async def one_work(self, work_id: str) -> JsonObject:
        return await self._json("GET", f"/api/v1/work/{_segment(work_id)}")

    async def cancel_work(self, work_id: str) -> JsonObject:
        """Ask for a piece of work to be stopped for good."""
        return await self._json("POST", f"/api/v1/work/{_segment(work_id)}/cancel")

    async def dead_letters(self, filters: Parameters) -> JsonObject:
        """Return `{deadLetters: […], nextPageToken}`."""
        return await self._json("GET", "/api/v1/dead-letters", filters)

    async def dead_letter(self, letter_id: str) -> JsonObject:
        return await self._json("GET", f"/api/v1/dead-letters/{_segment(letter_id)}")

    async def dead_letter_body(self, letter_id: str) -> bytes:
        """Return what a dead letter said, byte for byte."""
        path = f"/api/v1/dead-letters/{_segment(letter_id)}/body"
        async with self._response("GET", path, {}) as response:
            return b"".join([chunk async for chunk in self._bytes(response)])

    async def replay(self, letter_ids: Sequence[str]) -> JsonObject:
        """Ask for dead letters to be tried again. Return `{done: […], problems: [{id, message}]}`."""
        return await self._json("POST", "/api/v1/dead-letters/replay", body={"ids": list(letter_ids)})

    async def drop(self, letter_ids: Sequence[str]) -> JsonObject:
        """Let dead letters go. Return `{done: […], problems: [{id, message}]}`."""
        return await self._json("POST", "/api/v1/dead-letters/drop", body={"ids": list(letter_ids)})

    async def _bytes(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes(CHUNK_BYTES):
                yield chunk
        except httpx.TransportError as error:
            raise Unavailable(f"{self.address.url} broke off in the middle: {words_of(error)}") from error

    async def _json(
        self, method: str, path: str, parameters: Parameters | None = None, *, body: object = None
    ) -> JsonObject:
        async with self._response(method, path, parameters or {}, body=body) as response:
            content = b"".join([chunk async for chunk in self._bytes(response)])
        return _object(content, self.address.url) if content else {}

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        parameters: Parameters,
        *,
        body: object = None,
        timeout: httpx.Timeout | None = None,
    ) -> AsyncIterator[httpx.Response]:
        given = {name: value for name, value in parameters.items() if value is not None}
        request = self._http.build_request(
            method,
            path,
            params=given,
            json=body,
            timeout=timeout if timeout is not None else httpx.USE_CLIENT_DEFAULT,
        )
        response = await self._send(request)
        try:
            if not response.is_success:
                raise await self._problem(response)
            yield response
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._http.send(request, stream=True)
        except httpx.TimeoutException as error:
            raise NotRunning(f"{self.address.url} does not answer in time", hint=_WHERE) from error
        except httpx.UnsupportedProtocol as error:
            raise Refused(f"{self.address.url!r} is not a URL", hint="write http://host:8080") from error
        except httpx.TransportError as error:
            raise NotRunning(
                f"no Spool answers at {self.address.url}: {words_of(error)}", hint=_WHERE
            ) from error

    async def _problem(self, response: httpx.Response) -> Exception:
        """Read an error `{error, message, details: [{field, message}]}` and return what to raise."""
        content = b"".join([chunk async for chunk in self._bytes(response)])
        message = _problem_text(content, response, self.address.url)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return KeyRefused(message, hint="give the server's key in SPOOL_API_KEY")
        if response.status_code == httpx.codes.NOT_FOUND:
            return NotFound(message)
        if response.status_code == httpx.codes.CONFLICT:
            return Conflict(message)
        if response.is_server_error:
            return Unavailable(message, hint="see the server's log and /health/ready")
        return Refused(message)


class _Patience:
    """How long a stream is waited for, once it was there."""

    def __init__(self, on_missing: Callable[[Exception], None] | None) -> None:
        self._on_missing = on_missing
        self._ends_s: float | None = None  # None: it was never there
        self._told = False

    def renew(self) -> None:
        self._ends_s = time.monotonic() + MISSING_S
        self._told = False

    def lasts(self, error: Exception) -> bool:
        if self._ends_s is None:
            return False
        if not self._told:
            self._ends_s = time.monotonic() + MISSING_S
            self._told = True
            if self._on_missing:
                self._on_missing(error)
        return time.monotonic() < self._ends_s


_WHERE = "is 'spool up' running? name another with --url or SPOOL_URL"


async def _read_events(response: httpx.Response) -> AsyncIterator[SentEvent]:
    """Read a text/event-stream.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    cursor, data = "", list[str]()
    try:
        async for line in response.aiter_lines():
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                cursor = value
            elif name == "data":
                data.append(value)
            elif not line and data:
                yield SentEvent(cursor, _object("\n".join(data).encode(), str(response.url)))
                data = []
    except httpx.TransportError as error:
        raise Unavailable(f"the event stream broke off: {words_of(error)}") from error


def _object(content: bytes, url: str) -> JsonObject:
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise Corrupt(f"{url} does not answer in JSON", hint="is it a Spool? check --url") from error
    if not isinstance(parsed, dict):
        raise Corrupt(f"{url} answers with a {type(parsed).__name__}, not an object", hint="check --url")
    return parsed


def _problem_text(content: bytes, response: httpx.Response, url: str) -> str:
    try:
        problem = json.loads(content)
        details = problem.get("details") or []
        message = str(problem["message"])
        # Many a message names its fields already.
        unsaid = [detail for detail in details if str(detail["field"]) not in message]
        fields = "; ".join(f"{detail['field']}: {detail['message']}" for detail in unsaid)
    except (ValueError, AttributeError, KeyError, TypeError):
        return f"{url} answers {response.status_code} {response.reason_phrase} and is perhaps no Spool"
    return f"{message}: {fields}" if fields else message


def _segment(name: str) -> str:
    """Quote one segment of a path, so that no id becomes another address."""
    if name in ("", ".", ".."):
        raise Refused(f"{name!r} is not an id")
    return quote(name, safe="")
