"""`spool work`: what is being done, since when, how often, what went wrong, when next."""

from __future__ import annotations

from typing import Annotated

import typer

from spool.cli.asking import ask
from spool.cli.options import AsJson, Consumer, Data, EventType, MaxItems, PageToken, Url
from spool.cli.tables import print_json, print_page, print_sheet

COLUMNS = {
    "work": "id",
    "consumer": "consumer",
    "type": "type",
    "subject": "subject",
    "state": "state",
    "attempt": "attempt",
    "reason": "reason",
}


WorkId = Annotated[str, typer.Argument(metavar="WORK", help="The id in the list.", show_default=False)]


def build_app() -> typer.Typer:
    """Return the group `spool work`."""
    app = typer.Typer(name="work", help="List pieces of work, see where one is, stop one.")
    app.command("list")(list_work)
    app.command("show")(show_work)
    app.command("cancel")(cancel_work)
    return app


def list_work(
    *,
    consumer: Consumer = None,
    event_type: EventType = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="NAME", help="ready, working, done or dead.")
    ] = None,
    max_items: MaxItems = 50,
    page_token: PageToken = None,
    as_json: AsJson = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """List pieces of work."""
    filters = {
        "consumer": consumer,
        "type": event_type,
        "state": state,
        "maxItems": max_items,
        "nextPageToken": page_token,
    }
    page = ask(url, data, lambda client: client.work(filters))
    return print_json(page) if as_json else print_page(page, "work", COLUMNS)


def show_work(
    work_id: WorkId,
    as_json: AsJson = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Show one piece of work."""
    work = ask(url, data, lambda client: client.one_work(work_id))
    return print_json(work) if as_json else print_sheet(work)


def cancel_work(work_id: WorkId, as_json: AsJson = False, url: Url = None, data: Data = None) -> None:
    """Stop a piece of work for good, within seconds; it ends as a dead letter and leaves nothing behind."""
    answer = ask(url, data, lambda client: client.cancel_work(work_id))
    if as_json:
        return print_json(answer)
    return typer.echo(f"work {work_id} is being stopped; see 'spool work show {work_id}'")
