"""A command that is interrupted tidies up, at whatever moment the signal comes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from spool.cli.asynchronous import run_to_end
from spool.cli.failures import Terminated


@pytest.mark.parametrize(
    ("number", "error"),
    [
        pytest.param(signal.SIGINT, KeyboardInterrupt, id="ctrl-c"),
        pytest.param(signal.SIGTERM, Terminated, id="sigterm"),
    ],
)
def test_a_signal_lets_the_work_tidy_up(number: signal.Signals, error: type[BaseException]) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            done.append("tidied up")

    with pytest.raises(error):
        run_to_end(work())

    assert done == ["tidied up"]


def test_the_second_signal_does_not_wait_for_the_clean_up() -> None:
    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run_to_end(work())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_work_is_too_late(number: signal.Signals) -> None:
    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        # in the very turn of the loop in which asyncio.run learns of the end
        task.add_done_callback(lambda _: os.kill(os.getpid(), number))
        return "done"

    assert run_to_end(work()) == "done"
