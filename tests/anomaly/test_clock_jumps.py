"""The clock of a machine jumps by an hour, forward and back, while work is done: nobody notices.

Leases go by the clock of the database, hands by one that never jumps. On a server these are two machines; the
embedded database goes by the clock of the process, which is the one that jumps.

`libfaketime` (Debian's `faketime`) sets the clock of one process; the monotonic clock goes on, as it does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.anomaly.road import LOOK_S, Mill, Road, open_road

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
HOUR_S = 3600
LEASE_S = 10.0  # far shorter than the jump, and long enough for a busy machine to keep it
WORK_S = 12.0  # longer than a lease: a claim has to be kept alive across each jump
HANDS = 4


class Clock:
    """The clock of a process that is started with `environment`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        if LIBRARY is None:
            pytest.skip("there is no libfaketime: apt-get install faketime")
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_s: int) -> None:
        """Let the clock be wrong by so many seconds from now on."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.rename(self._path)


async def jump(clock: Clock, mill: Mill) -> None:
    """Let the clock go an hour forward, then two hours back, each while something is being done."""
    for hours, pieces in ((1, 1), (-1, 1 + HANDS)):
        await mill.until_said("begun", pieces)
        await asyncio.sleep(WORK_S / 4)
        clock.set(hours * HOUR_S)
        while hours not in hours_seen(mill):  # noqa: ASYNC110  # another process tells it in its log
            await asyncio.sleep(LOOK_S)


def hours_seen(mill: Mill) -> set[int]:
    """Return by how many hours the clock was wrong, by the times in the log."""
    now_s = time.time()
    lines = [json.loads(line) for line in mill.log.read_text().splitlines() if line.startswith("{")]
    return {round((datetime.fromisoformat(line["time"]).timestamp() - now_s) / HOUR_S) for line in lines}


async def test_on_a_server_a_worker_whose_clock_jumps_keeps_its_claims(
    road: Road, tmp_path: Path, tell_count: Callable[[object], None]
) -> None:
    clock = Clock(tmp_path / "clock")
    (jumping,) = await road.start_mills(
        1, environment=clock.environment, lease_s=LEASE_S, work_s=WORK_S, hands=HANDS
    )
    await road.start_mills(1, lease_s=LEASE_S, work_s=WORK_S, hands=HANDS)
    await road.ask(4 * HANDS)
    await jump(clock, jumping)
    await road.until_all_is_heard()
    await road.stop()
    truth = await road.truth()
    tell_count(truth)

    assert truth.faults == []
    assert (await road.most_attempts(), road.begun) == (1, truth.asked)


async def test_embedded_a_clock_that_jumps_takes_no_claim_and_holds_up_no_answer(
    tmp_path: Path, tell_count: Callable[[object], None]
) -> None:
    clock = Clock(tmp_path / "clock")
    files = tmp_path / "bus.db", tmp_path / "spool.db"
    async with open_road(tmp_path, database=f"sqlite:///{files[1]}", bus=str(files[0])) as road:
        await road.ask_before_the_start(2 * HANDS)
        (jumping,) = await road.start_mills(
            1, environment=clock.environment, lease_s=LEASE_S, work_s=WORK_S, hands=HANDS
        )
        await jump(clock, jumping)
        await road.until_all_is_told()
        await road.stop()
        await road.hear_at_the_end()
        truth = await road.truth()
        tell_count(truth)

        assert truth.faults == []
        assert (await road.most_attempts(), road.begun) == (1, truth.asked)
