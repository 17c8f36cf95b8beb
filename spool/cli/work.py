"""`spool work`: what is being done, since when, how often, what went wrong, when next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.kernel.errors import Conflict, NotFound, Refused
from spool.cli.asking import ask
from spool.cli.failures import FAILED, one_line, say, visible
from spool.cli.options import AsJson, Consumer, EventType, Paging, Service, Subject, Target, grouped
from spool.cli.tables import Column, print_json, print_page, print_sheet
from spool.cli.words import short, stand, with_ages

if TYPE_CHECKING:
    from spool.client import SpoolClient

WHOLE = ("work", "event", "tries")
MOMENTS = ("receivedAt", "replayedAt", "failingSince", "claimedAt", "nextAt", "leaseUntil", "doneAt")

WorkId = Annotated[str, typer.Argument(metavar="WORK", help="The id in the list.", show_default=False)]
WorkIds = Annotated[list[str], typer.Argument(metavar="WORK", help="Ids in the list.", show_default=False)]


def build_app() -> typer.Typer:
    """Return the group `spool work`."""
    app = typer.Typer(name="work", help="List pieces of work, see where one is, stop one.")
    app.command("list")(grouped(list_work))
    app.command("show")(grouped(show_work))
    app.command("cancel")(grouped(cancel_work))
    return app


def list_work(
    *,
    state: Annotated[
        str | None, typer.Option("--state", metavar="NAME", help="ready, working, done or dead.")
    ] = None,
    service: Service = None,
    consumer: Consumer = None,
    event_type: EventType = None,
    subject: Subject = None,
    failing: Annotated[
        bool | None,
        typer.Option("--failing/--not-failing", help="Whose last attempt failed, or all but those."),
    ] = None,
    waiting: Annotated[
        bool | None,
        typer.Option("--waiting/--not-waiting", help="That wait for a time or a wake, or all but those."),
    ] = None,
    paging: Paging,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """List pieces of work, the newest first: where each stands, since when, what went wrong, when next."""
    filters = {
        "state": state,
        "service": service,
        "consumer": consumer,
        "type": event_type,
        "subject": subject,
        "failing": _flag(failing),
        "waiting": _flag(waiting),
    } | paging.parameters
    page = ask(target, lambda client: client.work(filters))
    if as_json:
        return print_json(page)
    return print_page(page, "work", columns_at(datetime.now(UTC)), whole=WHOLE)


def columns_at(now: datetime) -> dict[str, Column]:
    """Return the columns of the list, with ages as of `now`."""
    return {
        "work": "id",
        "event": "type",
        "subject": "subject",
        "tries": "attempt",
        "where it stands": lambda work: short(stand(work, now)),
    }


def show_work(*, work_id: WorkId, as_json: AsJson = False, target: Target) -> None:
    """Show everything about one piece of work."""
    work = ask(target, lambda client: client.one_work(work_id))
    if as_json:
        return print_json(work)
    now = datetime.now(UTC)
    return print_sheet(
        {"id": work.get("id"), "where it stands": stand(work, now)} | with_ages(work, MOMENTS, now)
    )


def cancel_work(*, work_ids: WorkIds, as_json: AsJson = False, target: Target) -> None:
    """Stop pieces of work for good, within seconds.

    Each ends as a dead letter and leaves nothing behind; 'spool dead-letters replay' makes it work again.
    """

    async def cancel_all(client: SpoolClient) -> list[dict[str, Any]]:
        return [await _cancel_one(client, work_id) for work_id in work_ids]

    answers = ask(target, cancel_all)
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)
    for answer in answers:
        if "problem" in answer:
            say(f"spool: {one_line(str(answer['problem']))}")
        elif not as_json:
            shown = visible(str(answer.get("id")))
            typer.echo(f"work {shown} is being stopped; see 'spool work show {shown}'")
    if any("problem" in answer for answer in answers):
        raise typer.Exit(FAILED)


async def _cancel_one(client: SpoolClient, work_id: str) -> dict[str, Any]:
    """Ask for one to be stopped; the others are not held up by one that has ended."""
    try:
        return await client.cancel_work(work_id)
    except (Conflict, NotFound, Refused) as error:
        return {"id": work_id, "problem": str(error)}


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()
