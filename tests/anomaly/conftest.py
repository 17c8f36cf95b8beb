"""Footage, the nursery of victims, and servers that may be broken: once for the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.anomaly.installation import Addresses, Installation, open_installation
from tests.anomaly.nursery import Nursery, nursery_process, open_nursery
from tests.anomaly.recordings import LARGE, SMALL, Footage, record_footage
from tests.anomaly.road import Road, open_road
from tests.anomaly.servers import PostgresServer, RabbitNode, are_installed, postgres_server, rabbit_nodes


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


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[RabbitNode]]:
    """Return three nodes of RabbitMQ, each alone until a test joins them."""
    _need_servers()
    with rabbit_nodes(3) as started:
        yield started


@pytest.fixture
def lone_node(nodes: list[RabbitNode]) -> RabbitNode:
    """Return a broker that may be broken, and is mended again by whoever does."""
    return nodes[-1]


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """Return a PostgreSQL that may be broken, and is mended again by whoever does."""
    _need_servers()
    with postgres_server() as started:
        yield started


@pytest.fixture
async def road(tmp_path: Path, amqp_url: str, postgres_url: str) -> AsyncIterator[Road]:
    """Open a road on RabbitMQ and PostgreSQL, on which nobody works yet."""
    async with open_road(tmp_path, database=postgres_url, bus=amqp_url) as opened:
        yield opened


def _need_servers() -> None:
    if not are_installed():
        pytest.skip("there is no server to break: apt-get install rabbitmq-server postgresql")
