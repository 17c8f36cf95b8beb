"""`spool events`: hand an event to Spool, watch what it tells, and see what events look like."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
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
    app = typer.Typer(name="events", help="Publish an event, follow what is published, print a schema.")
    app.command("publish")(publish)
    app.command("tail")(grouped(tail))
    app.command("schema")(schema)
    return app


def publish(
    *,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-|TYPE",
            help="A CloudEvent in JSON; with --type, only its data. With --data: the type.",
            show_default=False,
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
    """Publish one event: a CloudEvent from a file, or a type with --data."""
    if body is not None and event_type is None:
        file, event_type = None, file
    event = _event_to_publish(file, event_type, body, event_id)
    answer = ask(Target(url, directory), lambda client: client.publish(event))
    if as_json:
        return print_json(answer)
    accepted = f"{visible(str(event.get('type')))} {visible(str(answer.get('id')))}"
    return typer.echo(f"accepted {accepted}: Spool publishes it, and tries again where that fails")


def _event_to_publish(
    file: str | None, event_type: str | None, body: str | None, event_id: str | None
) -> dict[str, Any]:
    if file is not None and event_type is None and _is_type(file):
        advice = f"give its data with --data, or as a file with --type {file} FILE"
        raise typer.BadParameter(f"{file} is a type of event: {advice}", param_hint="FILE")
    if (file is None) == (body is None):
        raise typer.BadParameter("give either a file or --data, and one of them", param_hint="FILE or --data")
    if body is not None and event_type is None:
        raise typer.BadParameter("--data needs a type, as clip_requested", param_hint="TYPE or --type")
    if event_type is None and event_id is not None:
        raise typer.BadParameter("a CloudEvent in a file has its own id", param_hint="--id")
    name, text = ("--data", body) if body is not None else _read(file or "-")
    content = _json_object(name, text or "")
    if event_type is not None and "specversion" in content:
        advice = "is a whole CloudEvent already, with a type of its own: publish it without --type"
        raise typer.BadParameter(f"{name} {advice}", param_hint="--type")
    return content if event_type is None else _wrapped(event_type, content, event_id)


def _is_type(name: str) -> bool:
    from shared.events.registry import TYPES

    return name in TYPES and not Path(name).exists()


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
    event_types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="NAME", help="Only events of this type; may be given several times."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="NAME", help="Only events about this clip, camera, …")
    ] = None,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """Show events as they are published, until Ctrl-C. A restart of Spool is waited for."""

    def wanted(event: Mapping[str, Any]) -> bool:
        of_type = not event_types or event.get("type") in event_types
        return of_type and subject in (None, event.get("subject"))

    _check_types(event_types or [])
    ask(target, lambda client: _follow(client, wanted, after=after, count=count, as_json=as_json))


async def _follow(
    client: SpoolClient,
    wanted: Callable[[Mapping[str, Any]], bool],
    *,
    after: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    shown = 0
    async with aclosing(client.follow(after=after, on_missing=_tell_missing)) as stream:
        async for sent in stream:
            if not wanted(sent.event):
                continue
            _show(sent, as_json=as_json)
            shown += 1
            if shown == count:
                return


def schema(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="As clip_requested.")],
) -> None:
    """Print the JSON Schema of a type of event. Needs no running Spool."""
    from shared.events.registry import TYPES
    from spool.event_schemas import schema_of

    _check_types([event_type])
    print_json(schema_of(TYPES[event_type]))


def _check_types(names: Sequence[str]) -> None:
    """Raise for a type that is none, which otherwise would be waited for in vain."""
    from shared.events.registry import TYPES

    for name in names:
        if name not in TYPES:
            known = ", ".join(TYPES)
            raise typer.BadParameter(f"{name!r} is no type of event; known are {known}", param_hint="TYPE")


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
