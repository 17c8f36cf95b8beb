"""`spool dead-letters`: what could not be done, why, and one more try."""

from __future__ import annotations

from typing import Annotated

import typer

from spool.cli.asking import ask
from spool.cli.options import AsJson, Consumer, Data, EventType, MaxItems, PageToken, Url
from spool.cli.tables import print_json, print_page, print_sheet

COLUMNS = {
    "letter": "id",
    "consumer": "consumer",
    "type": "type",
    "subject": "subject",
    "attempts": "attempt",
    "reason": "reason",
}

Letter = Annotated[str, typer.Argument(metavar="LETTER", help="The id in the list.", show_default=False)]

SHOWN_CHARACTERS = 2_000  # of a body: a screen of it


def build_app() -> typer.Typer:
    """Return the group `spool dead-letters`."""
    app = typer.Typer(name="dead-letters", help="List what could not be done, see why, try it once more.")
    app.command("list")(list_letters)
    app.command("show")(show_letter)
    app.command("replay")(replay_letter)
    return app


def list_letters(
    *,
    consumer: Consumer = None,
    event_type: EventType = None,
    max_items: MaxItems = 50,
    page_token: PageToken = None,
    as_json: AsJson = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """List dead letters with their reasons."""
    filters = {"consumer": consumer, "type": event_type, "maxItems": max_items, "nextPageToken": page_token}
    page = ask(url, data, lambda client: client.dead_letters(filters))
    return print_json(page) if as_json else print_page(page, "deadLetters", COLUMNS)


def show_letter(letter_id: Letter, as_json: AsJson = False, url: Url = None, data: Data = None) -> None:
    """Show one dead letter with what it said."""
    letter = ask(url, data, lambda client: client.dead_letter(letter_id))
    if as_json:
        return print_json(letter)
    body = str(letter.pop("body"))
    letter.pop("bodyBase64")
    cut = len(body) > SHOWN_CHARACTERS
    return print_sheet(letter | {"body": body[:SHOWN_CHARACTERS] + (" … (--json: all of it)" if cut else "")})


def replay_letter(letter_id: Letter, as_json: AsJson = False, url: Url = None, data: Data = None) -> None:
    """Work a dead letter once more, after what killed it was mended."""
    answer = ask(url, data, lambda client: client.replay(letter_id))
    if as_json:
        return print_json(answer)
    return typer.echo(f"dead letter {letter_id} is ready again; see 'spool work show {letter_id}'")
