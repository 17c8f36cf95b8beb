"""Work that must not be cut in two ends before its cancelled caller does."""

from __future__ import annotations

import asyncio

import pytest

from shared.database.cancellation import to_the_end


async def test_what_was_begun_ends_before_the_cancellation_is_felt() -> None:
    may_end = asyncio.Event()
    ended: list[str] = []

    async def work() -> str:
        await may_end.wait()
        ended.append("work")
        return "result"

    caller = asyncio.create_task(to_the_end(work()))
    await asyncio.sleep(0)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["work"]


async def test_the_result_and_the_error_of_the_work_are_its_callers() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    assert await to_the_end(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ZeroDivisionError):
        await to_the_end(fail())
