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
    return asyncio.run(_with_signals(work))


async def _with_signals(work: Coroutine[Any, Any, T]) -> T:
    """Cancel at the first signal, wait for the clean-up, then say which it was.

    The handlers stay until the loop is closed: what asyncio.run does for SIGINT raises in the middle of the
    loop's own ending when the work has just been done, and a finished clip would end in a traceback.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # a coroutine runs in a task
    heard: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if task.done():
            return
        if heard:
            raise KeyboardInterrupt  # asked twice: without the clean-up
        heard.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not heard:
            raise
        raise (KeyboardInterrupt if heard[0] == signal.SIGINT else Terminated) from None
