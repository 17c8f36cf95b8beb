"""Show answers: as tables and sheets for people, as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from spool.cli.failures import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# The name of a field, or what is said of the whole item.
Column: TypeAlias = "str | Callable[[Mapping[str, Any]], object]"

PIPE_COLUMNS = 240  # nobody's screen: a table in a file is not folded at 80


def print_json(value: object, *, on_one_line: bool = False) -> None:
    """Print JSON as the server gave it. Non-ASCII is escaped, so nothing in it can steer a terminal."""
    typer.echo(json.dumps(value, indent=None if on_one_line else 2))


def print_page(
    page: Mapping[str, Any],
    name: str,
    columns: Mapping[str, Column],
    *,
    whole: Collection[str] = (),
) -> None:
    """Print one page of a list, and how to get the next one."""
    items: Sequence[Mapping[str, Any]] = page.get(name) or []
    if not items:
        typer.echo("nothing to list")
        return
    print_list(items, columns, whole=whole)
    if token := page.get("nextPageToken"):
        typer.echo(f"more: --page-token {visible(str(token))}")


def print_list(
    items: Sequence[Mapping[str, Any]], columns: Mapping[str, Column], *, whole: Collection[str] = ()
) -> None:
    """Print a list of which there is one page only."""
    _console().print(table_of(items, columns, whole=whole))


def table_of(
    items: Sequence[Mapping[str, Any]], columns: Mapping[str, Column], *, whole: Collection[str]
) -> Table:
    """Return a table: `columns` maps a heading to what stands below it.

    What stands in the columns of `whole`, as ids, is never broken; the others are folded where it is narrow.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold", no_wrap=heading in whole)
    for item in items:
        table.add_row(*(Text(_cell(_below(column, item))) for column in columns.values()))
    return table


def _below(column: Column, item: Mapping[str, Any]) -> object:
    return item.get(column) if isinstance(column, str) else column(item)


def print_sheet(item: Mapping[str, Any]) -> None:
    """Print one thing, a line per field; what is nested is told by its path."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for path, value in _flat(item):
        table.add_row(Text(path), Text(_cell(value)))
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def _flat(item: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in item.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((visible(prefix + name), value))
    return rows


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | dict):
        return json.dumps(value)
    return visible(str(value))
