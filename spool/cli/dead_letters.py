"""`spool dead-letters`: what could not be done or told, why, and one more try, or none."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spool.cli.asking import ask
from spool.cli.failures import FAILED, one_line, say
from spool.cli.options import AsJson, Consumer, EventType, Paging, Service, Subject, Target, grouped
from spool.cli.tables import Column, print_json, print_page, print_sheet
from spool.cli.words import ago, pretty, short, with_ages
from spool.times import parse_age

if TYPE_CHECKING:
    from spool.client import SpoolClient

    Act = Callable[[SpoolClient, Sequence[str]], Awaitable[dict[str, Any]]]

WHOLE = ("letter", "event", "tries", "dead since")
MOMENTS = ("firstSeenAt", "failingSince", "replayedAt", "deadSince")
SHOWN_CHARACTERS = 2_000  # of a body: a screen of it
AT_ONCE = 100  # what the server takes in one request
PAGE = 500

Letter = Annotated[str, typer.Argument(metavar="LETTER", help="The id in the list.", show_default=False)]
Letters = Annotated[
    list[str] | None, typer.Argument(metavar="LETTER", help="Ids in the list.", show_default=False)
]
Origin = Annotated[
    str | None,
    typer.Option("--origin", metavar="NAME", help="Given up by: inbox, broker, or outbox (not published)."),
]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="With this in the reason, in any case.")
]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Dead for longer than, as 2h or 3d.")
]
NewerThan = Annotated[
    str | None, typer.Option("--newer-than", metavar="AGE", help="Dead for less than, as 30m.")
]
All = Annotated[bool, typer.Option("--all", help="All that match, or simply all.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AtMost = Annotated[
    int, typer.Option("--at-most", min=1, max=100_000, help="How many of those that match, newest first.")
]


@dataclass(frozen=True, slots=True)
class Common:
    """What dead letters have in common."""

    service: Service = None
    origin: Origin = None
    consumer: Consumer = None
    event_type: EventType = None
    subject: Subject = None
    reason: Reason = None
    older_than: OlderThan = None
    newer_than: NewerThan = None

    @property
    def parameters(self) -> dict[str, str | int | None]:
        return {
            "service": self.service,
            "origin": self.origin,
            "consumer": self.consumer,
            "type": self.event_type,
            "subject": self.subject,
            "reason": self.reason,
            "olderThanS": _age_s(self.older_than, "--older-than"),
            "newerThanS": _age_s(self.newer_than, "--newer-than"),
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """Some dead letters by id, or those that match."""

    letter_ids: Letters = None
    everything: All = False
    at_most: AtMost = 1_000
    yes: Yes = False


def build_app() -> typer.Typer:
    """Return the group `spool dead-letters`."""
    app = typer.Typer(
        name="dead-letters", help="List what could not be done, see why, try it once more, or drop it."
    )
    app.command("list")(grouped(list_letters))
    app.command("show")(grouped(show_letter))
    app.command("replay")(grouped(replay_letters))
    app.command("drop")(grouped(drop_letters))
    return app


def list_letters(
    *,
    common: Common,
    paging: Paging,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """List dead letters with their reasons, the newest first."""
    filters = common.parameters | paging.parameters
    page = ask(target, lambda client: client.dead_letters(filters))
    if as_json:
        return print_json(page)
    return print_page(page, "deadLetters", columns_at(datetime.now(UTC)), whole=WHOLE)


def columns_at(now: datetime) -> dict[str, Column]:
    """Return the columns of the list, with ages as of `now`."""
    return {
        "letter": "id",
        "event": "type",
        "subject": "subject",
        "tries": "attempt",
        "dead since": lambda letter: ago(letter.get("deadSince"), now),
        "reason": lambda letter: short(letter.get("reason")),
    }


def show_letter(
    *,
    letter_id: Letter,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write what it said to standard output, byte for byte.")
    ] = False,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """Show one dead letter with what it said."""
    if raw:
        body = ask(target, lambda client: client.dead_letter_body(letter_id))
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return None
    letter = ask(target, lambda client: client.dead_letter(letter_id))
    if as_json:
        return print_json(letter)
    said = pretty(letter.pop("body"))
    letter.pop("bodyBase64")
    print_sheet(with_ages(letter, MOMENTS, datetime.now(UTC)))
    cut = len(said) > SHOWN_CHARACTERS
    return typer.echo("\n" + said[:SHOWN_CHARACTERS] + ("\n… (--raw: all of it)" if cut else ""))


def replay_letters(
    *,
    choice: Choice,
    common: Common,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """Try dead letters once more, after what killed them was mended: some by id, or all that match.

    They keep their ids and have all their attempts before them. What could not be published is published.
    """
    chosen = _chosen(choice, common, target)
    if not choice.letter_ids:
        _confirm("replay", chosen, yes=choice.yes)
    answer = ask(target, lambda client: _each(client, chosen, type(client).replay))
    _tell(answer, "ready again; see 'spool work list'", as_json)


def drop_letters(
    *,
    choice: Choice,
    common: Common,
    as_json: AsJson = False,
    target: Target,
) -> None:
    """Let dead letters go for good, with what they said: some by id, or all that match.

    The same event coming again is recognised and not worked, for as long as SPOOL_KEEP_HOURS keeps its row.
    """
    chosen = _chosen(choice, common, target)
    _confirm("drop", chosen, yes=choice.yes)
    answer = ask(target, lambda client: _each(client, chosen, type(client).drop))
    _tell(answer, "dropped", as_json)


def _age_s(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_age(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _chosen(choice: Choice, common: Common, target: Target) -> Sequence[str]:
    """Return the ids given, or those of what matches now: what is asked about is what is done."""
    wanted = common.parameters
    by_filter = choice.everything or any(value is not None for value in wanted.values())
    if choice.letter_ids and by_filter:
        raise typer.BadParameter("give either ids, or what they have in common", param_hint="LETTER")
    if choice.letter_ids:
        return choice.letter_ids
    if not by_filter:
        raise typer.BadParameter("give ids, or what they have in common, or --all", param_hint="LETTER")
    return ask(target, lambda client: _matching(client, wanted, choice.at_most))


async def _matching(client: SpoolClient, wanted: dict[str, str | int | None], at_most: int) -> list[str]:
    ids: list[str] = []
    token: str | None = None
    while len(ids) < at_most:
        page_of = {"maxItems": min(PAGE, at_most - len(ids)), "nextPageToken": token}
        page = await client.dead_letters(wanted | page_of)
        ids += [str(letter["id"]) for letter in page["deadLetters"]]
        token = page.get("nextPageToken")
        if token is None:
            break
    return ids


def _confirm(verb: str, chosen: Sequence[str], *, yes: bool) -> None:
    if yes or not chosen:
        return
    what = f"{verb} {len(chosen)} dead letter{'' if len(chosen) == 1 else 's'}"
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"to {what} without being asked, say so", param_hint="--yes")
    typer.confirm(f"{what[0].upper()}{what[1:]}?", abort=True)


async def _each(client: SpoolClient, chosen: Sequence[str], act: Act) -> dict[str, list[Any]]:
    """Ask in portions, each of them a transaction."""
    answer: dict[str, list[Any]] = {"done": [], "problems": []}
    for start in range(0, len(chosen), AT_ONCE):
        told = await act(client, chosen[start : start + AT_ONCE])
        for name in answer:
            answer[name] += told[name]
    return answer


def _tell(answer: dict[str, list[Any]], done: str, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    elif len(answer["done"]) == 1:
        typer.echo(f"dead letter {answer['done'][0]} is {done}")
    elif answer["done"] or not answer["problems"]:
        typer.echo(f"{len(answer['done'])} dead letters are {done}")
    for problem in answer["problems"]:
        say(f"spool: {one_line(str(problem['message']))}")
    if answer["problems"]:
        raise typer.Exit(FAILED)
