"""Footage and the nursery of victims, once for the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.anomaly.installation import Addresses, Installation, open_installation
from tests.anomaly.nursery import Nursery, nursery_process, open_nursery
from tests.anomaly.recordings import LARGE, SMALL, Footage, record_footage


@pytest.fixture(scope="session")
def small_footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return asyncio.run(record_footage(tmp_path_factory.mktemp("small"), SMALL))


@pytest.fixture(scope="session")
def large_footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return asyncio.run(record_footage(tmp_path_factory.mktemp("large"), LARGE))


@pytest.fixture(params=["local-sqlite-file", "rabbitmq-postgresql-s3"])
def addresses(request: pytest.FixtureRequest) -> Addresses:
    """Return those of the embedded default, and those of servers."""
    if request.param == "local-sqlite-file":
        return Addresses()
    # Asked for by name, so that the half without servers runs where none is given.
    return Addresses(*(request.getfixturevalue(name) for name in ("amqp_url", "postgres_url", "s3_url")))


@pytest.fixture
def footage(request: pytest.FixtureRequest) -> Footage:
    """Return what was recorded: small, where a test does not ask for `large`."""
    found: Footage = request.getfixturevalue(f"{getattr(request, 'param', 'small')}_footage")
    return found


@pytest.fixture
async def installation(
    addresses: Addresses, tmp_path: Path, nursery: Nursery, footage: Footage
) -> AsyncIterator[Installation]:
    """Open an installation that knows its sources."""
    async with open_installation(tmp_path / "spool", addresses, footage) as opened:
        await opened.announce_sources(nursery)
        yield opened


@pytest.fixture(scope="session")
def nursery_socket() -> Iterator[Path]:
    with nursery_process() as path:
        yield path


@pytest.fixture
async def nursery(nursery_socket: Path) -> AsyncIterator[Nursery]:
    async with open_nursery(nursery_socket) as opened:
        yield opened
