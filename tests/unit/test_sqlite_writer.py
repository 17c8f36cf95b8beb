"""The writer of a SQLite file: what shares a COMMIT."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import event

from shared.database.engine import Connection
from shared.database.sqlite_file import writing_engine
from shared.database.sqlite_writer import UNIT_LIMIT_S, Transactions, Writer


async def nothing(_connection: Connection) -> None:
    """Be a unit that is only there to be committed."""


async def test_what_comes_while_the_thread_waits_for_its_turn_shares_its_commit(tmp_path: Path) -> None:
    engine = writing_engine(tmp_path / "spool.db")
    commits: list[object] = []
    event.listen(engine, "commit", commits.append)
    thread, turn = ThreadPoolExecutor(max_workers=1), threading.Event()
    writer = Writer(Transactions(engine, UNIT_LIMIT_S), thread)
    thread.submit(turn.wait, 10)

    first = asyncio.create_task(writer.write(nothing, urgent=False))
    for _ in range(3):
        await asyncio.sleep(0)  # the loop has called the thread by now
    second = asyncio.create_task(writer.write(nothing, urgent=False))
    await asyncio.sleep(0)
    turn.set()
    await asyncio.gather(first, second)
    await writer.close()

    assert len(commits) == 1
