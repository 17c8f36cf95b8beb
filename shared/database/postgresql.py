"""PostgreSQL by asyncpg: one transaction per unit, retried where the server says that this helps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import asyncpg
import structlog
from sqlalchemy import URL, ColumnElement, make_url, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.database.engine import OutcomeUnknown, Unit
from shared.database.now import now_by
from shared.kernel.errors import SpoolError, Unavailable, words_of

T = TypeVar("T")

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30  # every statement of ours is short; one that hangs must not hold a hand
POOL_TIMEOUT_S = 10
ATTEMPTS = 8  # of one unit, when the server asks to run it again
LISTEN_PAUSE_S = 1.0  # before a lost connection is made again
LISTEN_CHECK_S = 15.0  # how long a connection that is half open goes unnoticed; polls find the rows meanwhile
RETRY_DELAY_S = 0.02  # doubled each time, with jitter: two units that met once should not meet again

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_RUN_AGAIN = frozenset({"40001", "40P01", "55P03"})  # serialisation failure, deadlock, lock not available
# Connection, wrong login, no such database, resources, operator intervention, system error.
_AWAY_CLASSES = ("08", "28", "3D", "53", "57P", "58")

_ERRORS = (DBAPIError, PoolTimeout, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PostgresqlDatabase:
    """A database on a server. Its clock is the server's, the same for all workers."""

    dialect = "postgresql"

    def __init__(self, url: str, *, connections: int) -> None:
        """Connect when first used. `connections` is at least the number of hands."""
        self._engine = engine(url, connections=connections)
        # Heartbeats that waited behind the work they keep alive would lose it.
        self._reserved = engine(url, connections=1)
        self._listening = engine(url, connections=1)

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """See `Database.write`."""
        chosen = self._reserved if urgent else self._engine
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await _transaction(chosen, unit)
            except _ERRORS as error:
                if _sqlstate(error) not in _RUN_AGAIN:
                    raise _translated(error) from error
                if attempt == ATTEMPTS:
                    raise Unavailable(f"PostgreSQL asked {ATTEMPTS} times to try again: {error}") from error
            delay_s = RETRY_DELAY_S * 2**attempt
            await asyncio.sleep(random.uniform(delay_s / 2, delay_s))  # noqa: S311  # jitter is no secret
        raise AssertionError("the loop returns or raises")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """See `Database.read`."""
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(postgresql_readonly=True)
                yield connection
        except _ERRORS as error:
            raise _translated(error) from error

    def now_sql(self) -> ColumnElement[int]:
        return now_by(self.dialect)

    async def now_ms(self) -> int:
        async with self.read() as connection:
            now_ms: int = (await connection.execute(select(self.now_sql()))).scalar_one()
            return now_ms

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """See `Database.listen`. On a connection of its own, made again when it was lost."""
        while True:
            try:
                await self._hear(channel, heard)
            except _ERRORS as error:
                log.info("database.not_listening", channel=channel, reason=str(error))
            await asyncio.sleep(LISTEN_PAUSE_S)

    async def _hear(self, channel: str, heard: Callable[[], None]) -> None:
        """Listen until the connection is lost."""
        lost = asyncio.Event()
        async with self._listening.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, asyncpg.Connection)
            try:
                driver.add_termination_listener(lambda _: lost.set())
                await driver.add_listener(channel, lambda *_: heard())
                heard()  # what came before
                while not lost.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LISTEN_CHECK_S):
                            await lost.wait()
                    await driver.execute("SELECT 1")  # a connection that is only half there says nothing
            finally:
                # The pool does not hear what befalls the driver: it would lend a lost one for ever.
                await connection.invalidate()

    async def give_back_space(self, *, pages: int = 500) -> None:
        """Do nothing: autovacuum does."""

    async def close(self) -> None:
        await self._engine.dispose()
        await self._reserved.dispose()
        await self._listening.dispose()


def engine(url: str, *, connections: int) -> AsyncEngine:
    """Return an engine for `postgresql://user@host/database`, with every wait bounded."""
    return create_async_engine(
        async_url(url),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_use_lifo=True,  # the last one used has its statements prepared; in turns, all would have to
        pool_pre_ping=False,  # a round trip per transaction; a lost connection raises Unavailable instead
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": STATEMENT_TIMEOUT_S,
            # Compiling costs more than any statement of ours takes.
            "server_settings": {"application_name": "spool", "jit": "off"},
        },
    )


def async_url(url: str) -> URL:
    """Name the driver, and translate libpq's `sslmode` for it."""
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    sslmode = parsed.query.get("sslmode")
    if not isinstance(sslmode, str):
        return parsed
    return parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})


async def _transaction(chosen: AsyncEngine, unit: Unit[T]) -> T:
    async with chosen.connect() as connection:
        await connection.begin()
        result = await unit(connection)
        try:
            await connection.commit()
        except _ERRORS as error:
            if _sqlstate(error) is not None and not _is_away(error):
                raise  # the server itself said that it did not commit
            raise OutcomeUnknown(f"the connection was lost during COMMIT: {error}") from error
        return result


def _sqlstate(error: BaseException) -> str | None:
    origin = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(origin, "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_away(error: BaseException) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = _sqlstate(error)
    if state is None:
        return not isinstance(error, DBAPIError)
    return state.startswith(_AWAY_CLASSES)


def _translated(error: BaseException) -> BaseException:
    """Say "away" in Spool's words; leave every other error as it is."""
    if isinstance(error, SpoolError) or not _is_away(error):
        return error
    if isinstance(error, PoolTimeout):
        return Unavailable("every connection to PostgreSQL is in use")
    cause = (isinstance(error, DBAPIError) and error.orig) or error  # without the SQL
    return Unavailable(f"PostgreSQL does not answer: {words_of(cause)}")
