"""The tree of commands, and the one place where a command's failure becomes an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from spool.cli import asyncapi, bus, clip, clips, dead_letters, demo, events, run, storage, uploads, work
from spool.cli.failures import INTERRUPTED, OK, TOLD, report, say

PANEL_RUN = "Run Spool"
PANEL_ASK = "Ask the running Spool"
PANEL_HERE = "Without a running Spool"


def build_app() -> typer.Typer:
    """Return the command line with all its commands."""
    app = typer.Typer(
        name="spool",
        help="Looks after recordings of calls, meetings and cameras: takes events, cuts exact clips, tells.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    app.command(rich_help_panel=PANEL_HERE)(demo.demo)
    app.command(rich_help_panel=PANEL_HERE)(clip.clip)
    app.command("asyncapi", rich_help_panel=PANEL_HERE)(asyncapi.print_document)
    app.command(rich_help_panel=PANEL_RUN)(run.up)
    app.command(rich_help_panel=PANEL_RUN)(run.serve)
    app.command(rich_help_panel=PANEL_RUN)(run.migrate)
    app.add_typer(bus.build_app(), rich_help_panel=PANEL_RUN)
    app.add_typer(storage.build_app(), rich_help_panel=PANEL_HERE)
    app.add_typer(uploads.build_app(), rich_help_panel=PANEL_HERE)
    app.add_typer(events.build_app(), rich_help_panel=PANEL_ASK)
    app.add_typer(clips.build_app(), rich_help_panel=PANEL_ASK)
    app.add_typer(work.build_app(), rich_help_panel=PANEL_ASK)
    app.add_typer(dead_letters.build_app(), rich_help_panel=PANEL_ASK)
    return app


def main() -> NoReturn:
    """Run the command that the process was started with."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. A bug is raised, with its traceback."""
    try:
        code = build_app()(args=list(arguments), prog_name="spool", standalone_mode=False)
    except TOLD as error:
        exit_code = report(error)
        if exit_code is None:
            raise
        return exit_code
    if code == INTERRUPTED:  # typer has turned a KeyboardInterrupt into its code already
        say("spool: interrupted")
    return code if isinstance(code, int) else OK


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        typer.echo(f"spool {_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def _version() -> str:
    from importlib.metadata import version  # only when asked for: it is not free

    return version("spool-recordings")
