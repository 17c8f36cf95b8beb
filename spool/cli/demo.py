"""`spool demo`: the whole road once, on a machine that has nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spool.cli.asynchronous import run_to_end
from spool.cli.failures import FAILED


def demo(
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", metavar="FILE", help="A recording of your own. (default: two of a made-up camera)"
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Where everything is kept.", show_default=True)
    ] = Path("spool-demo"),
) -> None:
    """See a clip travel the whole road: announced, asked for, cut, told, and checked frame by frame."""
    from spool.demo import run_demo

    if not run_to_end(run_demo(data, file)):
        raise typer.Exit(FAILED)
