"""Databases to test with: the embedded one, and PostgreSQL where a server is given. Each test has its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from shared.database import postgresql
from shared.database.engine import Database
from shared.database.opening import open_database
from shared.runtime.clock import SystemClock
from spool.migrations import migrate


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def empty_url(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a database without tables."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'spool.db'}"
        return
    server: str = request.getfixturevalue("postgres_url")
    name = f"spool_{uuid.uuid4().hex}"
    await _administer(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    await _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(empty_url: str) -> str:
    """The address of a database with all tables."""
    await migrate(empty_url)
    return empty_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url, clock=SystemClock(), connections=8)
    yield opened
    await opened.close()


async def _administer(server: str, statement: str) -> None:
    engine = postgresql.engine(server, connections=1)
    async with engine.connect() as connection:
        outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await outside.execute(text(statement))
    await engine.dispose()
