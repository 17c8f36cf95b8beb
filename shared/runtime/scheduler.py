"""Periodic work: every tick is claimed under (task, due time), so one runner in the fleet does it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite

from shared.database.engine import Connection, Database
from shared.database.tables import tick
from shared.kernel.errors import SpoolError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tick:
    """Something to do every `every_s` seconds, by one process of all. It runs at most `time_limit_s`."""

    task: str
    every_s: int
    run: Callable[[], Awaitable[None]]
    time_limit_s: int = 300


async def run_ticks(ticks: Sequence[Tick], database: Database, *, worker: str) -> None:
    """Run the ticks until cancelled, each in a task of its own."""
    async with asyncio.TaskGroup() as group:
        for each in ticks:
            group.create_task(_run_tick(each, database, worker), name=f"tick {each.task}")


async def _run_tick(each: Tick, database: Database, worker: str) -> None:
    period_ms = each.every_s * 1000
    while True:
        try:
            now_ms = await database.now_ms()
            due_ms = now_ms - now_ms % period_ms
            if await _claim(database, each.task, due_ms, worker):
                async with asyncio.timeout(each.time_limit_s):
                    await each.run()
            wait_s = (due_ms + period_ms - now_ms) / 1000
        except SpoolError as error:
            log.warning("tick.failed", task=each.task, reason=str(error))
            wait_s = each.every_s
        except Exception:
            # A tick that fails must not end the other ticks, nor the service: the next one tries again.
            log.exception("tick.broken", task=each.task)
            wait_s = each.every_s
        await asyncio.sleep(wait_s)


async def _claim(database: Database, task: str, due_ms: int, worker: str) -> bool:
    """Take the tick unless somebody has taken this one or a later one."""

    async def unit(connection: Connection) -> bool:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        first = dialect.insert(tick).values(task=task, due_ms=due_ms, worker=worker)
        if (await connection.execute(first.on_conflict_do_nothing(index_elements=["task"]))).rowcount == 1:
            return True
        later = update(tick).where(tick.c.task == task, tick.c.due_ms < due_ms)
        return (await connection.execute(later.values(due_ms=due_ms, worker=worker))).rowcount == 1

    return await database.write(unit)
