"""`spool events`: hand an event to Spool, and watch what it tells."""
# Heavy imports wait until a command runs: `spool --help` answers at once.
# ruff: noqa: PLC0415

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.kernel.errors import Refused
from spool.cli.asking import ask
from spool.cli.failures import one_line, say, visible
from spool.cli.options import AsJson, Target, Url, grouped
from spool.cli.tables import print_json

if TYPE_CHECKING:
    from spool.client import SentEvent, SpoolClient

SOURCE = "spool-cli"
MAX_EVENT_BYTES = 1024 * 1024  # read from a file; the server's own limit is smaller and better explained


def build_app() -> typer.Typer:
    """Return the group `spool events`."""
    app = typer.Typer(name="events", help="Publish an event, or follow what is published.")
    app.command("publish")(publish)
    app.command("tail")(grouped(tail))
    return app


def publish(
    *,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-", help="A CloudEvent in JSON; with --type, only its data.", show_default=False
        ),
    ] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="NAME", help="The type, as clip_requested.")
    ] = None,
    body: Annotated[
        str | None, typer.Option("--data", metavar="JSON", help='The data, as \'{"cameraId": "door", …}\'.')
    ] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The event's id, for sending the same one again.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    directory: Annotated[
        Path | None,
        typer.Option("--data-directory", metavar="DIR", help="The data directory. (default: ./spool-data)"),
    ] = None,
) -> None:
    """Publish one event: a CloudEvent from a file, or --type with --data."""
    event = _event_to_publish(file, event_type, body, event_id)
    answer = ask(Target(url, directory), lambda client: client.publish(event))
    if as_json:
        return print_json(answer)
    return typer.echo(f"published {visible(str(event.get('type')))} {visible(str(answer.get('id')))}")


def _event_to_publish(
    file: str | None, event_type: str | None, body: str | None, event_id: str | None
) -> dict[str, Any]:
    if (file is None) == (body is None):
        raise typer.BadParameter("give either a file or --data, and one of them", param_hint="FILE or --data")
    if body is not None and event_type is None:
        raise typer.BadParameter("--data needs a type, as --type clip_requested", param_hint="--type")
    if event_type is None and event_id is not None:
        raise typer.BadParameter("a CloudEvent in a file has its own id", param_hint="--id")
    name, text = ("--data", body) if body is not None else _read(file or "-")
    content = _json_object(name, text or "")
    return content if event_type is None else _wrapped(event_type, content, event_id)


def _wrapped(event_type: str, data: dict[str, Any], event_id: str | None) -> dict[str, Any]:
    from shared.kernel.ids import new_id
    from shared.kernel.timeline import iso_utc
    from shared.runtime.clock import SystemClock

    clock = SystemClock()
    return {
        "specversion": "1.0",
        "id": event_id or new_id(clock),
        "source": SOURCE,
        "type": event_type,
        "time": iso_utc(clock.now_ms()),
        "datacontenttype": "application/json",
        "data": data,
    }


def _read(file: str) -> tuple[str, str]:
    name = "standard input" if file == "-" else file
    if file == "-":
        content = sys.stdin.buffer.read(MAX_EVENT_BYTES + 1)
    else:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_EVENT_BYTES + 1)
    if len(content) > MAX_EVENT_BYTES:
        raise Refused(f"{name} is longer than {MAX_EVENT_BYTES} bytes and cannot be an event")
    try:
        return name, content.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not text in UTF-8 and cannot be an event") from error


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused(f"{name} holds a {type(parsed).__name__}; an event is a JSON object")
    return parsed


def tail(
    *,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="CURSOR", help="Start after this event; 0 is the beginning."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many events.")
    ] = None,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """Show events as they are published, until Ctrl-C. A restart of Spool is waited for."""
    ask(target, lambda client: _follow(client, after=after, count=count, as_json=as_json))


async def _follow(client: SpoolClient, *, after: str | None, count: int | None, as_json: bool) -> None:
    shown = 0
    async with aclosing(client.follow(after=after, on_missing=_tell_missing)) as stream:
        async for sent in stream:
            _show(sent, as_json=as_json)
            shown += 1
            if shown == count:
                return


def _tell_missing(error: Exception) -> None:
    say(f"spool: {one_line(str(error))}; waiting for it to come back")


def _show(sent: SentEvent, *, as_json: bool) -> None:
    if as_json:
        return print_json({"cursor": sent.cursor, "event": sent.event}, on_one_line=True)
    event = sent.event
    words = (
        sent.cursor,
        str(event.get("time") or "-"),
        event.get("type"),
        event.get("subject") or "-",
        event.get("id"),
    )
    return typer.echo("  ".join(visible(str(word)) for word in words))
