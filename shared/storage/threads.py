"""Calls that block, in a few threads of their own, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.database.cancellation import to_the_end
from shared.storage.folder import told

T = TypeVar("T")

THREADS = 8  # more would only queue at the disk, and the default pool of the loop is for others


class Threads:
    """A bounded pool. What is begun in it runs to its end: a descriptor is never closed under a write."""

    def __init__(self) -> None:
        """Make the pool; its threads start when they are needed."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="spool-storage")

    async def run(self, subject: str, call: Callable[[], T]) -> T:
        """Run `call`; errors of the operating system are told as ours, about `subject`."""
        with told(subject):
            return await to_the_end(asyncio.get_running_loop().run_in_executor(self._pool, call))

    async def close(self) -> None:
        """End the threads once they are idle."""
        await to_the_end(asyncio.to_thread(self._pool.shutdown))
