"""A process of Spool, from its settings to its end: all services, or some."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import structlog

from services.clipper import app as clipper
from shared.bus.message import Subscription
from shared.inbox.claims import release_all_claims
from shared.observability.logging import configure_logging
from shared.outbox.subjects import release_all_subjects
from shared.runtime.api_key import KeyRing, keep_key, key_file
from shared.runtime.clock import SystemClock
from shared.runtime.data_directory import make_data_directory
from shared.runtime.http import listening_socket
from shared.runtime.lock import held_directory
from shared.runtime.service import Process
from shared.runtime.wiring import Lending, Seams, open_platform, recorded_spans
from shared.settings.misspelt import misspelt_variables
from shared.settings.settings import Settings
from spool.migrations import check_migrated, migrate
from spool.running_file import announced

log = structlog.get_logger()

_APPS: dict[str, ModuleType] = {clipper.NAME: clipper}
SERVICES = tuple(_APPS)


def subscriptions_of(services: Sequence[str]) -> list[Subscription]:
    """Return what these services need on the bus."""
    return [each for name in services for each in _APPS[name].subscriptions()]


@dataclass(frozen=True, slots=True)
class Running:
    """A Spool that answers: where, and the key it accepts.

    `key_kept_in` is the key's file, None for a key of the settings; `key_is_new`: it was made just now.
    """

    url: str
    api_key: str
    key_kept_in: Path | None
    key_is_new: bool
    data_directory: Path


async def serve(
    settings: Settings,
    *,
    services: Sequence[str],
    on_ready: Callable[[Running], None] | None = None,
    seams: Seams | None = None,
) -> None:
    """Run services until SIGTERM, SIGINT or cancellation, then drain.

    What of the settings is embedded is migrated, and held alone by this process. `seams` are for tests.
    Raises Refused or Unavailable when it cannot start.
    """
    configure_logging(level=settings.log_level, as_json=settings.log_format == "json")
    for variable, nearest in misspelt_variables().items():
        log.warning("settings.unknown_variable", variable=variable, nearest=nearest)
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as unseen:
        make_data_directory(settings.data_directory)
        if settings.embedded:
            stack.enter_context(held_directory(settings.data_directory))
        listener = stack.enter_context(listening_socket(settings.http_host, settings.http_port))
        running = _running(settings, listener)
        if running.key_kept_in and running.key_is_new:
            # Nobody is shown the key of a start that fails: the next start makes one, and shows it.
            unseen.callback(running.key_kept_in.unlink, missing_ok=True)
        if settings.database is None:
            await migrate(settings.database_address)
        else:
            await check_migrated(settings.database_address)
        lending = Lending.by(running.api_key, public_url=settings.public_url or running.url)
        hands = sum(_APPS[name].hands() for name in services)
        async with (
            recorded_spans(services),
            open_platform(
                settings, clock=SystemClock(), hands=hands, lending=lending, seams=seams or Seams()
            ) as platform,
        ):
            if settings.embedded_database:
                # Whoever holds the directory is alone: nobody else's claim can be alive.
                await release_all_claims(platform.database)
                await release_all_subjects(platform.database)
            process = Process(
                [_APPS[name].build(platform) for name in services],
                platform,
                keys=KeyRing(settings.api_keys or (running.api_key,)),
                lending=lending,
                listener=listener,
            )
            stack.enter_context(announced(running.url, running.data_directory))

            def ready() -> None:
                unseen.pop_all()
                if on_ready:
                    on_ready(running)

            await process.run(ready)


def _running(settings: Settings, listener: socket.socket) -> Running:
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    url, directory = f"http://{shown_host}:{port}", settings.data_directory
    if settings.api_keys:
        return Running(url, settings.api_keys[0], None, False, directory)  # noqa: FBT003  # the key is not new
    api_key, is_new = keep_key(directory)
    return Running(url, api_key, key_file(directory), is_new, directory)
