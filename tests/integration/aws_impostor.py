"""A way to a server that speaks AWS's language, on which some calls are answered wrongly.

It stands between a client and a real server over HTTP, knows each call by its name, and lets the others pass.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode

from aiohttp import ClientSession, ClientTimeout, web


class AwsImpostor:
    """Made by `aws_impostor`."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.counted: Counter[str] = Counter()  # calls by name, those that pass as well
        self._target = target
        self._wrong: dict[str, tuple[int, str, int | None]] = {}
        self._dropped: tuple[str, ...] = ()
        self._sender_fault = False

    def answer(self, call: str, status: int, code: str, *, times: int | None = None) -> None:
        """Answer the call with an error, always or a number of times."""
        self._wrong[call] = (status, code, times)

    def drop_from_batches(self, *ids: str, sender_fault: bool = False) -> None:
        """Let entries of the next PublishBatch fail, and the others pass."""
        self._dropped = ids
        self._sender_fault = sender_fault

    def behave(self) -> None:
        """Let everything pass again."""
        self._wrong.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = _call(request, body)
        self.counted[call] += 1
        if (wrong := self._wrong.get(call)) is not None:
            status, code, times = wrong
            if times == 1:
                del self._wrong[call]
            elif times is not None:
                self._wrong[call] = (status, code, times - 1)
            return _error(request, status, code)
        dropped = self._dropped if call == "PublishBatch" else ()
        if dropped:
            self._dropped = ()
            body = _without(body, dropped)
        status, content_type, answer = await self._pass_on(request, body)
        if dropped:
            failed = "".join(_failed(each, sender_fault=self._sender_fault) for each in dropped).encode()
            answer = re.sub(rb"<Failed\s*/>|<Failed>\s*</Failed>", b"", answer)
            answer = answer.replace(
                b"</PublishBatchResult>", b"<Failed>" + failed + b"</Failed></PublishBatchResult>"
            )
        return web.Response(status=status, body=answer, headers={"content-type": content_type})

    async def _pass_on(self, request: web.Request, body: bytes) -> tuple[int, str, bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        async with (
            ClientSession(timeout=ClientTimeout(30), auto_decompress=False) as session,
            session.post(self._target + request.path, data=body, headers=headers) as answer,
        ):
            return answer.status, answer.headers.get("content-type", ""), await answer.read()


@asynccontextmanager
async def aws_impostor(target: str) -> AsyncIterator[AwsImpostor]:
    """Open one in front of the server at `target`, and close it at the end."""
    impostor = AwsImpostor(target)
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", impostor.handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    impostor.url = f"http://{host}:{port}"
    try:
        yield impostor
    finally:
        await asyncio.shield(runner.cleanup())


def _call(request: web.Request, body: bytes) -> str:
    """Return the call's name: a header in the language of SQS, a field of the form in that of SNS."""
    if target := request.headers.get("x-amz-target"):
        return target.rpartition(".")[2]
    return dict(parse_qsl(body.decode())).get("Action", "")


def _error(request: web.Request, status: int, code: str) -> web.Response:
    if "x-amz-target" in request.headers:
        answer = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "wrong"})
        return web.Response(status=status, text=answer, content_type="application/x-amz-json-1.0")
    answer = f"<ErrorResponse><Error><Code>{code}</Code><Message>wrong</Message></Error></ErrorResponse>"
    return web.Response(status=status, text=answer, content_type="text/xml")


def _without(body: bytes, ids: tuple[str, ...]) -> bytes:
    """Take entries out of a form: their numbers close up again, as SNS wants them."""
    fields = parse_qsl(body.decode(), keep_blank_values=True)
    entries: dict[str, list[tuple[str, str]]] = {}
    others = []
    for name, value in fields:
        found = re.fullmatch(r"PublishBatchRequestEntries\.member\.(\d+)\.(.*)", name)
        if found:
            entries.setdefault(found[1], []).append((found[2], value))
        else:
            others.append((name, value))
    kept = [entry for entry in entries.values() if dict(entry)["Id"] not in ids]
    for number, entry in enumerate(kept, start=1):
        others += [(f"PublishBatchRequestEntries.member.{number}.{name}", value) for name, value in entry]
    return urlencode(others).encode()


def _failed(entry_id: str, *, sender_fault: bool) -> str:
    fault = str(sender_fault).lower()
    return (
        f"<member><Id>{entry_id}</Id><Code>{'InvalidParameter' if sender_fault else 'InternalError'}</Code>"
        f"<Message>wrong</Message><SenderFault>{fault}</SenderFault></member>"
    )
