"""What `Database` promises, on SQLite and on PostgreSQL, and that migrations make the declared tables."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import os
import pkgutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from prometheus_client import REGISTRY
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import func, literal, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

import services
from shared.database import postgresql
from shared.database.engine import Connection, Database, OutcomeUnknown
from shared.database.opening import open_database
from shared.database.sqlite import SqliteDatabase
from shared.database.tables import metadata, tick
from shared.kernel.errors import Bug, Refused, SpoolError, Transient, Unavailable
from shared.runtime.clock import SystemClock
from spool.migrations import migrate, run_on


def declare_all_tables() -> None:
    for found in pkgutil.iter_modules(services.__path__, "services."):
        if importlib.util.find_spec(f"{found.name}.store"):
            importlib.import_module(f"{found.name}.store")


def definitions(connection: SyncConnection) -> dict[str, str]:
    """Tables (SQLite) and indexes (both) as the database itself writes them."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    rows = connection.execute(text(query)).all()
    return {name: " ".join(sql.split()) for name, sql in rows if not name.startswith("alembic")}


async def test_the_migrations_make_the_tables_that_the_code_declares(database_url: str) -> None:
    declare_all_tables()

    def differences(connection: SyncConnection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, metadata))

    assert await run_on(database_url, differences) == []


async def test_the_migrations_make_the_same_indexes_as_the_code(empty_url: str) -> None:
    declare_all_tables()

    def declare(connection: SyncConnection) -> dict[str, str]:
        metadata.create_all(connection)
        declared = definitions(connection)
        metadata.drop_all(connection)
        return declared

    declared = await run_on(empty_url, declare)
    await migrate(empty_url)

    assert await run_on(empty_url, definitions) == declared


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    await migrate(database_url)


async def test_containers_that_start_together_migrate_once(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        await migrate(empty_url)  # one process at a time: there is nobody to meet
        return
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(migrate(empty_url))


async def put(connection: Connection, task: str, due_ms: int = 1) -> None:
    await connection.execute(tick.insert().values(task=task, due_ms=due_ms))


async def tasks(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(tick.c.task).order_by(tick.c.task))).scalars())


async def test_a_unit_that_raises_is_undone_and_its_neighbours_are_not(database: Database) -> None:
    async def good(connection: Connection, name: str) -> str:
        await put(connection, name)
        return name

    async def bad(connection: Connection) -> None:
        await put(connection, "bad")
        raise LookupError("not this one")

    results = await asyncio.gather(
        database.write(lambda connection: good(connection, "a")),
        database.write(bad),
        database.write(lambda connection: good(connection, "b")),
        return_exceptions=True,
    )

    assert results[0] == "a"
    assert isinstance(results[1], LookupError)
    assert results[2] == "b"
    assert await tasks(database) == ["a", "b"]


async def test_a_broken_constraint_is_the_units_own_error(database: Database) -> None:
    await database.write(lambda connection: put(connection, "a"))

    with pytest.raises(IntegrityError):
        await database.write(lambda connection: put(connection, "a"))
    await database.write(lambda connection: put(connection, "b"))


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, Unavailable)):
        async with database.read() as connection:
            await put(connection, "a")

    assert await tasks(database) == []


async def test_units_that_read_and_then_write_lose_no_update(database: Database) -> None:
    await database.write(lambda connection: put(connection, "count", 0))

    async def increase(connection: Connection) -> None:
        count = (await connection.execute(select(tick.c.due_ms).with_for_update())).scalar_one()
        await connection.execute(tick.update().values(due_ms=count + 1))

    await asyncio.gather(*(database.write(increase) for _ in range(40)))
    async with database.read() as connection:
        count = (await connection.execute(select(tick.c.due_ms))).scalar_one()

    assert count == 40


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_unit_that_has_read_can_be_sure_of_it_on_sqlite(
    database: Database, database_url: str
) -> None:
    await database.write(lambda connection: put(connection, "count", 0))
    another = sqlite3.connect(make_url(database_url).database or "", timeout=0, check_same_thread=False)

    async def read_then_write(connection: Connection) -> None:
        await connection.execute(select(tick.c.due_ms))
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # a person's shell, say
            another.execute("UPDATE tick SET due_ms = 7")
        await connection.execute(tick.update().values(due_ms=tick.c.due_ms + 1))

    await database.write(read_then_write)
    another.close()
    async with database.read() as connection:
        count = (await connection.execute(select(tick.c.due_ms))).scalar_one()

    assert count == 1


async def test_units_that_lock_each_other_are_run_again(database: Database) -> None:
    await database.write(lambda connection: put(connection, "a"))
    await database.write(lambda connection: put(connection, "b"))
    both_hold_one = asyncio.Barrier(2)
    met: set[str] = set()

    async def crossing(connection: Connection, first: str, second: str) -> None:
        await connection.execute(tick.update().where(tick.c.task == first).values(due_ms=tick.c.due_ms + 1))
        if database.dialect == "postgresql" and first not in met:
            met.add(first)
            await both_hold_one.wait()
        await connection.execute(tick.update().where(tick.c.task == second).values(due_ms=tick.c.due_ms + 1))

    await asyncio.gather(
        database.write(lambda connection: crossing(connection, "a", "b")),
        database.write(lambda connection: crossing(connection, "b", "a")),
    )
    async with database.read() as connection:
        counts = list((await connection.execute(select(tick.c.due_ms))).scalars())

    assert counts == [3, 3]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_an_urgent_write_is_next_on_sqlite(database: Database) -> None:
    order: list[str] = []
    loop = asyncio.get_running_loop()
    started, go_on = asyncio.Event(), threading.Event()

    async def slow(_connection: Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait()

    async def note(_connection: Connection, name: str) -> None:
        order.append(name)

    running = [asyncio.create_task(database.write(slow))]
    await started.wait()
    running += [asyncio.create_task(database.write(partial(note, name="ordinary"))) for _ in range(3)]
    await asyncio.sleep(0)  # let the three queue before the heartbeat comes
    running.append(asyncio.create_task(database.write(partial(note, name="urgent"), urgent=True)))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*running)

    assert order[0] == "urgent"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_the_metrics_tell_how_many_units_wait(database: Database) -> None:
    loop = asyncio.get_running_loop()
    started, go_on = asyncio.Event(), threading.Event()

    async def slow(_connection: Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait()

    running = [asyncio.create_task(database.write(slow))]
    await started.wait()
    running += [asyncio.create_task(database.write(partial(put, task=name))) for name in "abc"]
    await asyncio.sleep(0)  # let the three queue
    while_it_runs = REGISTRY.get_sample_value("spool_database_write_queue_length")
    go_on.set()
    await asyncio.gather(*running)

    assert while_it_runs == 3
    assert REGISTRY.get_sample_value("spool_database_write_queue_length") == 0


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_an_urgent_write_needs_no_connection_of_the_others(database: Database) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_connection: Connection) -> None:
        started.set()
        await go_on.wait()

    running = [asyncio.create_task(database.write(slow)) for _ in range(8)]  # as many as there are
    await started.wait()
    await database.write(partial(put, task="urgent"), urgent=True)
    busy = not any(task.done() for task in running)
    go_on.set()
    await asyncio.gather(*running)

    assert busy
    assert await tasks(database) == ["urgent"]


async def test_the_clock_is_the_same_in_a_statement_and_alone(database: Database) -> None:
    before_ms = await database.now_ms()

    async def stamp(connection: Connection) -> None:
        await connection.execute(tick.insert().values(task="now", due_ms=database.now_sql()))

    await database.write(stamp)
    after_ms = await database.now_ms()
    async with database.read() as connection:
        stamped_ms = (await connection.execute(select(tick.c.due_ms))).scalar_one()

    assert before_ms <= stamped_ms <= after_ms


class RisingClock(SystemClock):
    """A clock that is never asked twice at the same moment."""

    asked = 0

    def now_ms(self) -> int:
        self.asked += 1
        return self.asked


async def test_a_statement_of_sqlite_asks_the_clock_once_for_all_its_rows(tmp_path: Path) -> None:
    clock = RisingClock()
    database = await SqliteDatabase.open(tmp_path / "spool.db", clock=clock)
    number = select(literal(1).label("number")).cte("numbers", recursive=True)
    numbers = number.union_all(select(number.c.number + 1).where(number.c.number < 100))
    moments = select(database.now_sql().label("moment"), numbers.c.number).subquery()
    asking = select(func.count(moments.c.moment.distinct()))
    async with database.read() as connection:
        answers = [(await connection.execute(asking)).scalar_one() for _ in range(2)]
    await database.close()

    assert answers == [1, 1]
    assert clock.asked == 2


async def test_what_was_written_is_there_after_opening_again(database_url: str) -> None:
    first = await open_database(database_url, clock=SystemClock())
    await first.write(lambda connection: put(connection, "kept"))
    await first.give_back_space()
    await first.close()
    second = await open_database(database_url, clock=SystemClock())
    found = await tasks(second)
    await second.close()

    assert found == ["kept"]


async def test_writes_that_wait_when_the_database_closes_are_finished(database_url: str) -> None:
    database = await open_database(database_url, clock=SystemClock())
    writing = [asyncio.create_task(database.write(partial(put, task=name))) for name in "abcd"]
    await asyncio.sleep(0)
    if database.dialect == "postgresql":
        await asyncio.gather(*writing)
    await database.close()

    assert await asyncio.gather(*writing) == [None] * 4


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_closed_sqlite_database_says_so(database: Database) -> None:
    await database.close()

    with pytest.raises(Unavailable):
        await database.write(lambda connection: put(connection, "late"))


@pytest.fixture
async def cut_wire(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = postgresql.engine(database_url, connections=1)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_a_lost_connection_is_unavailable_and_the_next_unit_works(
    database: Database, cut_wire: AsyncEngine
) -> None:
    async def cut(connection: Connection) -> None:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        async with cut_wire.connect() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        await put(connection, "never")

    with pytest.raises(Unavailable):
        await database.write(cut)
    await database.write(lambda connection: put(connection, "after"))

    assert await tasks(database) == ["after"]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_a_connection_lost_before_commit_leaves_the_outcome_unknown(
    database: Database, cut_wire: AsyncEngine
) -> None:
    runs = 0

    async def cut_last(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        await put(connection, "perhaps")
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        async with cut_wire.connect() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    with pytest.raises(OutcomeUnknown):
        await database.write(cut_last)

    assert runs == 1


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("mysql://root@localhost/spool", Refused, id="another-database"),
        pytest.param("spool.db", Refused, id="no-url"),
        pytest.param("sqlite://", Refused, id="no-file"),
        pytest.param("sqlite:////nowhere/at/all/spool.db", Unavailable, id="no-directory"),
        pytest.param("postgresql://spool@127.0.0.1:1/spool", Unavailable, id="nobody-listens"),
    ],
)
async def test_a_wrong_address_is_said_in_spools_words(url: str, error: type[SpoolError]) -> None:
    with pytest.raises(error):
        await migrate(url)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_a_wrong_login_is_unavailable(empty_url: str) -> None:
    url = make_url(empty_url).set(username="nobody_at_all").render_as_string(hide_password=False)
    database = await open_database(url, clock=SystemClock())

    with pytest.raises(Unavailable, match="nobody_at_all"):
        await database.now_ms()
    await database.close()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_full_disk_fails_its_unit_and_not_the_others(database: Database, tmp_path: Path) -> None:
    async def limit(connection: Connection) -> None:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {pages + 10}"))

    async def huge(connection: Connection) -> None:
        await connection.execute(tick.insert().values(task="huge", due_ms=1, worker="x" * 1_000_000))

    await database.write(limit)
    results = await asyncio.gather(
        database.write(lambda connection: put(connection, "a")),
        database.write(huge),
        database.write(lambda connection: put(connection, "b")),
        return_exceptions=True,
    )

    assert isinstance(results[1], Unavailable)
    assert await tasks(database) == ["a", "b"]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_a_unit_that_is_cancelled_within_a_statement_harms_nobody_else(database: Database) -> None:
    async def cancelled(connection: Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await put(connection, "never")

    async def writing(name: str) -> None:
        await database.write(partial(put, task=name))

    cancelling = asyncio.create_task(database.write(cancelled))
    others = [asyncio.create_task(writing(name)) for name in "ab"]
    done, _ = await asyncio.wait({cancelling, *others})

    assert len(done) == 3
    assert cancelling.cancelled() or isinstance(cancelling.exception(), Transient)
    assert await tasks(database) == ["a", "b"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_unit_whose_caller_is_cancelled_runs_to_its_end(database: Database) -> None:
    loop = asyncio.get_running_loop()
    started, go_on = asyncio.Event(), threading.Event()

    async def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait()
        await put(connection, "all the same")

    cancelled = asyncio.create_task(database.write(slow))
    await started.wait()
    cancelled.cancel()
    await asyncio.wait({cancelled})
    go_on.set()
    await database.write(partial(put, task="after"))

    assert cancelled.cancelled()
    assert await tasks(database) == ["after", "all the same"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_unit_that_waits_for_anything_else_is_a_bug_of_its_own(database: Database) -> None:
    async def waits(connection: Connection) -> None:
        await put(connection, "never")
        await asyncio.sleep(0)

    results = await asyncio.gather(
        database.write(waits), database.write(partial(put, task="a")), return_exceptions=True
    )

    assert isinstance(results[0], Bug)
    assert await tasks(database) == ["a"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("statements", [pytest.param(1, id="in one"), pytest.param(1_000_000, id="in many")])
async def test_a_unit_that_takes_too_long_is_stopped(database_url: str, statements: int) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    statement = text(endless if statements == 1 else "SELECT 1")
    database = await SqliteDatabase.open(
        Path(make_url(database_url).database or ""), clock=SystemClock(), unit_limit_s=0.1
    )

    async def slow(connection: Connection) -> None:
        await put(connection, "never")
        for _ in range(statements):
            await connection.execute(statement)

    with pytest.raises(Transient, match="took longer"):
        await database.write(slow)
    await database.write(partial(put, task="after"))
    found = await tasks(database)
    await database.close()

    assert found == ["after"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_unit_need_not_look_at_what_it_asked_for(database: Database) -> None:
    async def careless(connection: Connection) -> None:
        await connection.execute(tick.insert().values(task="a", due_ms=1).returning(tick.c.task))

    await database.write(careless)

    assert await tasks(database) == ["a"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_unit_keeps_the_log_context_of_its_caller(database: Database) -> None:
    async def contexts(_connection: Connection) -> object:
        return structlog.contextvars.get_contextvars().get("event_id")

    async def bound(name: str) -> object:
        with structlog.contextvars.bound_contextvars(event_id=name):
            return await database.write(contexts)

    assert list(await asyncio.gather(bound("a"), bound("b"))) == ["a", "b"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_space_that_was_freed_is_given_back(database: Database) -> None:
    async def pages() -> int:
        async with database.read() as connection:
            count: int = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            return count

    async def fill(connection: Connection) -> None:
        await connection.execute(tick.insert().values(task="huge", due_ms=1, worker="x" * 1_000_000))

    async def empty(connection: Connection) -> None:
        await connection.execute(tick.delete())

    small = await pages()
    await database.write(fill)
    await database.write(empty)
    large = await pages()
    await database.give_back_space(pages=100)
    after_a_slice = await pages()
    await database.give_back_space()

    assert after_a_slice == large - 100
    assert await pages() <= small + 1


@pytest.fixture
def _small_garbage() -> Iterator[None]:
    """Let the garbage collector look through what this test makes, and not all that the others have left."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_small_garbage")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
async def test_a_read_that_is_cancelled_anywhere_leaves_no_file_open(empty_url: str) -> None:
    async def read(database: Database) -> None:
        async with database.read() as connection:
            await connection.execute(select(tick))

    await migrate(empty_url)
    for turns in range(40):
        database = await open_database(empty_url, clock=SystemClock())
        reading = asyncio.create_task(read(database))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        await database.close()
        gc.collect()

        assert not [file for file in open_files() if file.endswith("spool.db")]


def open_files() -> list[str]:
    """Return what this process has open. A file may be closed between the two looks."""
    return [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
