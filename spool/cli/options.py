"""Options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The Spool to ask. (default: $SPOOL_URL, else the one on --data)"
    ),
]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="The data directory. (default: ./spool-data)", show_default=False
    ),
]
Port: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65535,
        help="HTTP port; 0 takes a free one. (default: $SPOOL_HTTP_PORT, else 8080)",
    ),
]
Consumer: TypeAlias = Annotated[
    str | None,
    typer.Option("--consumer", metavar="QUEUE", help="Of this queue only, as clipper.clip_requested."),
]
EventType: TypeAlias = Annotated[
    str | None, typer.Option("--type", metavar="NAME", help="Of this type of event only.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the server's JSON as it came.")]
MaxItems: TypeAlias = Annotated[
    int, typer.Option("--max-items", "-n", min=1, max=500, help="How many to list at most.")
]
PageToken: TypeAlias = Annotated[
    str | None,
    typer.Option("--page-token", metavar="TOKEN", help="Continue a list where its last page ended."),
]
