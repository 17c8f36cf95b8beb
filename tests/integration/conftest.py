"""Databases to test with: the embedded one, and PostgreSQL where a server is given. Each test has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.processors import JSONRenderer, format_exc_info

from shared.database.engine import Database
from shared.database.opening import open_database
from shared.runtime.clock import SystemClock
from spool.migrations import migrate


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Write logs as production does: structlog's default draws tracebacks for seconds, in the event loop."""
    structlog.configure(processors=[format_exc_info, JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def empty_url(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return the address of a database without tables."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path / 'spool.db'}"
    # Asked for by name, so that the half on SQLite runs where no server is given.
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database_url(empty_url: str) -> str:
    """Return the address of a database with all tables."""
    await migrate(empty_url)
    return empty_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url, clock=SystemClock(), connections=8)
    yield opened
    await opened.close()
