"""Ask the running Spool a question: find it, connect, run, and close."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from spool.cli.asynchronous import run_to_end
from spool.cli.options import Target

if TYPE_CHECKING:
    from spool.client import SpoolClient

T = TypeVar("T")


def ask(target: Target, question: Callable[[SpoolClient], Awaitable[T]]) -> T:
    """Return the answer of the Spool that is named, or else of the one that the settings name."""
    from shared.settings.settings import load_settings
    from spool.client import SpoolClient, find_spool

    overrides: dict[str, Any] = {"url": target.url, "data_directory": target.data}
    settings = load_settings(**{name: value for name, value in overrides.items() if value is not None})
    address = find_spool(settings)

    async def connect_and_ask() -> T:
        async with SpoolClient(address) as client:
            return await question(client)

    return run_to_end(connect_and_ask())
