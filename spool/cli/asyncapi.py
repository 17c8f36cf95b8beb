"""`spool asyncapi`: the published language as a document."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def print_document(
    form: Annotated[Literal["json", "yaml"], typer.Option("--format", help="How to write it.")] = "json",
) -> None:
    """Print all events, who sends and who receives them, as AsyncAPI 3.0. Needs no running Spool."""
    from spool.asyncapi import as_json, as_yaml, document

    write = as_json if form == "json" else as_yaml
    typer.echo(write(document()), nl=False)
