"""Run a command's coroutine so that Ctrl-C and SIGTERM both let it tidy up first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from spool.cli.failures import Terminated

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns. Raises KeyboardInterrupt or Terminated after its clean-up has run."""
    return asyncio.run(_with_sigterm(work))


async def _with_sigterm(work: Coroutine[Any, Any, T]) -> T:
    """Do for SIGTERM what asyncio.run does for SIGINT: cancel, wait for the clean-up, then say why."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # a coroutine runs in a task
    terminated = asyncio.Event()

    def stop() -> None:
        terminated.set()
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if terminated.is_set():
            raise Terminated from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
