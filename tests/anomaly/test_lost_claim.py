"""A process stands still for longer than its lease: another one does the work, and the first adds nothing.

SIGSTOP is what a frozen virtual machine, a swapping host or a long pause look like to everybody else.
Its lease is made to run out, so that neither process needs a short one that a busy machine could not keep.

The other one has finished when the first goes on. So this is the test of what it does then: it adds nothing
outside the database, and says that it lost. That its token keeps it from committing, also while the other
still works, is for tests/integration/test_finishing_together.py; docs/reliability/races.md has them all.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.anomaly.inspection import faults
from tests.anomaly.installation import LOOK_S, Installation, stop
from tests.anomaly.killing import KillPoint
from tests.anomaly.nursery import Nursery, Victim

WORK_LOST = '"work.lease_lost"'


async def until_stopped(victim: Victim) -> None:
    while Path(f"/proc/{victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(LOOK_S)


async def until_said(victim: Victim, words: str) -> None:
    while words not in victim.log.read_text():
        assert not victim.has_ended(), victim.log.read_text()[-4000:]
        await asyncio.sleep(LOOK_S)


@pytest.mark.parametrize("footage", ["large"], indirect=True)  # in two parts
@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("storage.writer before completion", id="just before its clip would appear"),
        pytest.param("step.handled", id="with its clip made, before its end is committed"),
    ],
)
async def test_a_worker_that_lost_its_claim_adds_nothing(
    installation: Installation, nursery: Nursery, name: str
) -> None:
    request = installation.request("lost")
    environment = installation.environment()
    await installation.stranger.publish([request], running=False)
    first = await nursery.bear(environment, installation.directory, point=KillPoint(name, what="stop"))
    await until_stopped(first)
    await installation.let_leases_run_out()
    (installation.directory / "second").mkdir()
    second = await nursery.bear(environment, installation.directory / "second")
    await installation.until(None, "lost")
    made = await installation.storage.head("clips/gate/lost.mp4")
    first.send(signal.SIGCONT)
    await until_said(first, WORK_LOST)
    stays = await installation.storage.head("clips/gate/lost.mp4")
    await stop(first)
    await stop(second)

    assert await faults(installation, [request], nursery) == []
    assert len(installation.stranger.heard) == 1
    assert stays.etag == made.etag
