"""Servers that cannot copy, or say so late: a real server behind a gate that answers copies in its place."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from shared.kernel.errors import Conflict, NotFound
from shared.storage.port import StoredObject, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_limits import S3Limits
from tests.integration.s3_gate import Line, S3Gate, opened_behind

MIB = 1 << 20
SOURCE = Random(5).randbytes(13 * MIB)
HEAD = b"a new index"
QUICK = S3Limits(attempts=2, wait_s=0.01, wait_max_s=0.05)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def refusal(status: int, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return (
        b"HTTP/1.1 %d No\r\ncontent-type: application/xml\r\n" % status
        + b"content-length: %d\r\n\r\n" % len(body)
        + body
    )


@dataclass
class Gate(S3Gate):
    """Answers the copies among the requests by itself as long as it is told to."""

    answers: list[bytes | None] = field(default_factory=list)  # for the next copies; None lets one through
    before_copy: Callable[[], Awaitable[object]] | None = None  # of the last one in `answers`
    copies: int = 0
    unconditional: int = 0  # copies that do not say which version of the source they mean

    async def pass_requests(self, line: Line) -> None:
        while True:
            request = await line.client.readuntil(b"\r\n\r\n")
            if b"\r\nx-amz-copy-source:" in request and (answer := await self._answer(request)):
                line.to_client.write(answer)
                continue
            line.to_server.write(request)
            length = _LENGTH.search(request)
            left_bytes = int(length[1]) if length else 0
            while left_bytes:
                chunk = await line.client.read(min(left_bytes, MIB))
                if not chunk:
                    raise EOFError
                line.to_server.write(chunk)
                await line.to_server.drain()
                left_bytes -= len(chunk)

    async def _answer(self, request: bytes) -> bytes | None:
        self.copies += 1
        self.unconditional += b"\r\nx-amz-copy-source-if-match:" not in request
        if not self.answers:
            return None
        answer = self.answers.pop(0)
        if not self.answers and self.before_copy:
            await self.before_copy()
        return answer


@dataclass
class Way:
    """A store behind a gate with a source in it, and the same store reached directly."""

    gate: Gate
    storage: S3Storage
    direct: S3Storage
    source: StoredObject

    async def clip(self) -> int:
        """Write a head and the source behind it; returns how many bytes the store copied."""
        async with self.storage.writer("clip", WriteOptions()) as writer:
            await writer.write(HEAD)
            return await writer.copy(self.source, 0, len(SOURCE))

    async def holds(self, key: str) -> bytes:
        async with self.direct.read(key) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def replace_source(self) -> None:
        await store(self.direct, self.source.key, bytes(len(SOURCE)))


@pytest.fixture
async def way(s3_url: str) -> AsyncIterator[Way]:
    gate = Gate()
    async with opened_behind(gate, s3_url, QUICK) as (storage, direct):
        yield Way(gate, storage, direct, await store(direct, "source", SOURCE))


async def store(storage: S3Storage, key: str, content: bytes) -> StoredObject:
    async with storage.writer(key, WriteOptions()) as writer:
        await writer.write(content)
    return writer.stored


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refusal(501, "NotImplemented"), id="not implemented"),
        pytest.param(refusal(400, "InvalidArgument"), id="an argument it does not know"),
        pytest.param(refusal(405, "MethodNotAllowed"), id="a method it does not know"),
    ],
)
async def test_what_a_server_cannot_copy_is_read_and_it_is_not_asked_again(way: Way, answer: bytes) -> None:
    way.gate.answers = [answer] * 20

    copied_bytes = [await way.clip(), await way.clip()]

    assert copied_bytes == [0, 0]
    assert way.gate.copies == 2  # with checksums, and without
    assert await way.holds("clip") == HEAD + SOURCE
    assert await way.direct.unfinished() == []


async def test_a_server_that_copies_only_without_checksums_is_asked_once_with_them(way: Way) -> None:
    way.gate.answers = [refusal(400, "InvalidArgument")]

    copied_bytes = [await way.clip(), await way.clip()]

    assert copied_bytes == [8 * MIB + len(HEAD)] * 2
    assert way.gate.copies == 1 + 2 + 2
    assert way.gate.unconditional == 0
    assert await way.holds("clip") == HEAD + SOURCE
    assert await way.direct.unfinished() == []


async def test_a_range_that_is_refused_is_read_in_the_same_write(way: Way) -> None:
    way.gate.answers = [None, refusal(400, "InvalidRequest")]

    assert await way.clip() == 0
    assert await way.holds("clip") == HEAD + SOURCE
    assert await way.clip() == 8 * MIB + len(HEAD)


async def test_copies_that_are_not_allowed_are_read_and_asked_for_again(way: Way) -> None:
    way.gate.answers = [refusal(403, "AccessDenied")]

    assert await way.clip() == 0
    assert await way.holds("clip") == HEAD + SOURCE
    assert await way.clip() == 8 * MIB + len(HEAD)


async def test_a_copy_whose_condition_a_server_ignores_is_noticed(way: Way) -> None:
    """It answers as if it had copied; that the source is another one by then shows afterwards."""
    copied = b"<CopyPartResult><ETag>&quot;0&quot;</ETag></CopyPartResult>"
    ignored = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(copied) + copied
    way.gate.answers = [None, ignored]
    way.gate.before_copy = way.replace_source

    with pytest.raises(Conflict, match="source"):
        await way.clip()
    with pytest.raises(NotFound):
        await way.direct.head("clip")
    assert await way.direct.unfinished() == []
