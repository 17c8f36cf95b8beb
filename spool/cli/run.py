"""`spool up`, `spool serve` and `spool migrate`: the processes that do the work."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spool.cli.asynchronous import run_to_end
from spool.cli.options import Data, Port

if TYPE_CHECKING:
    from shared.settings.settings import Settings
    from spool.serving import Running


def up(
    data: Data = None,
    port: Port = None,
) -> None:
    """Run all of Spool in this process, on one directory, until Ctrl-C.

    Everything is kept in the directory, also over kill -9. With nothing else set no server is needed.
    """
    import asyncio

    from spool.serving import SERVICES
    from spool.serving import serve as serve_services

    # serve ends on SIGINT and SIGTERM by itself, after the drain.
    asyncio.run(
        serve_services(_settings(data_directory=data, http_port=port), services=SERVICES, on_ready=_announce)
    )


def serve(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="The service, as clipper.", show_default=False)
    ],
    data: Data = None,
    port: Port = None,
) -> None:
    """Run one service against SPOOL_BUS, SPOOL_STORAGE and SPOOL_DATABASE, until SIGTERM."""
    import asyncio

    from spool.serving import SERVICES
    from spool.serving import serve as serve_services

    if service not in SERVICES:
        raise typer.BadParameter(
            f"{service!r} is not known; known: {', '.join(SERVICES)}", param_hint="SERVICE"
        )
    settings = _settings(data_directory=data, http_port=port)
    asyncio.run(serve_services(settings, services=(service,), on_ready=_announce))


def migrate(data: Data = None) -> None:
    """Bring the database of SPOOL_DATABASE to this version's tables. Safe to repeat."""
    from shared.runtime.data_directory import make_data_directory
    from shared.runtime.lock import held_directory
    from spool.migrations import migrate as migrate_database

    settings = _settings(data_directory=data)
    held: AbstractContextManager[None] = nullcontext()
    if settings.database is None:
        make_data_directory(settings.data_directory)
        held = held_directory(settings.data_directory)  # its file may be in use by a Spool that runs there
    with held:
        run_to_end(migrate_database(settings.database_address))
    typer.echo("the database has the tables of this version")


def _settings(**given: Any) -> Settings:
    from shared.settings.settings import load_settings

    return load_settings(**{name: value for name, value in given.items() if value is not None})


def _announce(running: Running) -> None:
    typer.echo(f"Spool runs at {running.url} (OpenAPI at {running.url}/docs)")
    if running.key_is_new:
        typer.echo(f"x-api-key: {running.api_key} (kept in {running.key_kept_in}, not shown again)")
    elif running.key_kept_in:
        typer.echo(f"x-api-key: kept in {running.key_kept_in}")
