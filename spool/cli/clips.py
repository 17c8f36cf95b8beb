"""`spool clips`: what was asked for and what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from spool.cli.asking import ask
from spool.cli.options import AsJson, Paging, Target, grouped
from spool.cli.tables import print_json, print_page, print_sheet

COLUMNS = {
    "clip": "clipId",
    "camera": "cameraId",
    "from (ms)": "startTimestampInMs",
    "to (ms)": "endTimestampInMs",
    "status": "status",
    "requested": "requestedAt",
}


def build_app() -> typer.Typer:
    """Return the group `spool clips`."""
    app = typer.Typer(name="clips", help="List clips, and see what became of one.")
    app.command("list")(grouped(list_clips))
    app.command("show")(grouped(show_clip))
    return app


def list_clips(
    *,
    camera: Annotated[str | None, typer.Option("--camera", metavar="ID", help="Of this camera only.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="NAME",
            help="requested, working, available, not_available, refused or failed.",
        ),
    ] = None,
    from_ms: Annotated[
        int | None,
        typer.Option("--from", metavar="MS", help="That end after this moment (UTC milliseconds)."),
    ] = None,
    to_ms: Annotated[
        int | None,
        typer.Option("--to", metavar="MS", help="That start before this moment (UTC milliseconds)."),
    ] = None,
    paging: Paging,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """List clips, the newest first."""
    filters = {
        "cameraId": camera,
        "status": status,
        "from": from_ms,
        "to": to_ms,
    } | paging.parameters
    page = ask(target, lambda client: client.clips(filters))
    if as_json:
        return print_json(page)
    return print_page(page, "clips", COLUMNS)


def show_clip(
    *,
    clip_id: Annotated[str, typer.Argument(metavar="CLIP", help="The clip's id.", show_default=False)],
    as_json: AsJson = False,
    target: Target,
) -> None:
    """Show one clip with its result."""
    clip = ask(target, lambda client: client.clip(clip_id))
    return print_json(clip) if as_json else print_sheet(clip)
