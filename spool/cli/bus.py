"""`spool bus`: make on the broker what the services need, and see what is there.

It asks the broker of the settings, not a running Spool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from spool.cli.asynchronous import run_to_end
from spool.cli.options import AsJson, Data
from spool.cli.tables import print_json, print_page

if TYPE_CHECKING:
    from pathlib import Path

    from shared.bus.port import Inspectable

COLUMNS = {
    "queue": "queue",
    "at the broker": "called",
    "exists": "exists",
    "ready": "ready",
    "taken": "taken",
    "does not hear": "unheard",
}
INCOMPLETE = 1  # what a script asks `show` for


def build_app() -> typer.Typer:
    """Return the group `spool bus`."""
    app = typer.Typer(name="bus", help="Make and see the queues of SPOOL_BUS.")
    app.command("declare")(declare)
    app.command("show")(show)
    return app


def declare(data: Data = None, as_json: AsJson = False) -> None:
    """Make the queues that this version's services need, then show them. Safe to repeat.

    It makes them also where the address says create=no: that is for services, this is a person.
    """
    _print(run_to_end(_look(data, make=True)), as_json=as_json)


def show(data: Data = None, as_json: AsJson = False) -> None:
    """Show the queues that this version's services need. Ends with 1 when something is missing."""
    queues = run_to_end(_look(data, make=False))
    _print(queues, as_json=as_json)
    if any(not queue["exists"] or queue["unheard"] for queue in queues):
        raise typer.Exit(INCOMPLETE)


async def _look(data: Path | None, *, make: bool) -> list[dict[str, Any]]:
    from spool.serving import SERVICES, subscriptions_of

    wanted = subscriptions_of(SERVICES)
    async with _opened(data, make=make) as bus:
        if make:
            await bus.declare(wanted)
        return [asdict(await bus.inspect(subscription)) for subscription in wanted]


@asynccontextmanager
async def _opened(data: Path | None, *, make: bool) -> AsyncIterator[Inspectable]:
    from shared.observability.logging import quiet_libraries
    from shared.runtime.data_directory import make_data_directory
    from shared.runtime.lock import held_directory
    from shared.runtime.wiring import open_bus
    from shared.settings.settings import load_settings

    quiet_libraries()
    settings = load_settings(**({"data_directory": data} if data else {}))
    local = settings.bus == "local:"
    if local:
        make_data_directory(settings.data_directory)
    # The queues of a directory belong to the Spool that runs there.
    with held_directory(settings.data_directory) if local else nullcontext():
        bus = await open_bus(settings, create=make)
        try:
            yield bus
        finally:
            await bus.close()


def _print(queues: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        return print_json({"queues": queues})
    shown = [queue | {"unheard": ", ".join(queue["unheard"]) or None} for queue in queues]
    return print_page({"queues": shown}, "queues", COLUMNS)
