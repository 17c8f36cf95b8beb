"""Options that several commands have, each said once; and groups of them, that commands take as one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

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
Service: TypeAlias = Annotated[
    str | None, typer.Option("--service", metavar="NAME", help="Of this service only, as clipper.")
]
Subject: TypeAlias = Annotated[
    str | None,
    typer.Option("--subject", metavar="NAME", help="About this clip, camera or recording only."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the server's JSON as it came.")]
MaxItems: TypeAlias = Annotated[
    int, typer.Option("--max-items", "-n", min=1, max=500, help="How many to list at most.")
]
PageToken: TypeAlias = Annotated[
    str | None,
    typer.Option("--page-token", metavar="TOKEN", help="Continue a list where its last page ended."),
]


@dataclass(frozen=True, slots=True)
class Target:
    """Which Spool to ask."""

    url: Url = None
    data: Data = None


@dataclass(frozen=True, slots=True)
class Paging:
    """How much of a list, and from where on."""

    max_items: MaxItems = 50
    page_token: PageToken = None

    @property
    def parameters(self) -> dict[str, str | int | None]:
        return {"maxItems": self.max_items, "nextPageToken": self.page_token}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: dataclasses, each field of which is an option of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            own = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            parameters.append(own)
        else:
            parameters += _options_of(group)

    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{option.name: given.pop(option.name) for option in fields(group)})
        command(**given)

    # What typer looks at, in place of what this function looks like.
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=hints[option.name],
        )
        for option in fields(group)
    ]
