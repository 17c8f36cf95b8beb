"""SIGTERM in the middle of a clip: the work is finished, or given back so that nobody waits for a lease."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from shared.database.tables import State, inbox
from shared.events.envelope import Event
from tests.anomaly.inspection import faults
from tests.anomaly.installation import LOOK_S, Installation, stop
from tests.anomaly.killing import KillPoint
from tests.anomaly.nursery import Nursery, Victim

CLIPS = 4  # of each round: every hand of both processes has one
ROUNDS = 3
# Longer than the test may take: whatever waited for a lease to run out would fail it.
LEASE_S = 600

AT_ITS_PICTURES = KillPoint("media.thumbnails before", what="hold")  # the clip is stored by then


async def test_work_that_ends_within_the_grace_is_finished_and_told(
    installation: Installation, nursery: Nursery
) -> None:
    request = installation.request("finished")
    await installation.stranger.publish([request], running=False)
    running = await nursery.bear(installation.environment(), installation.directory, point=AT_ITS_PICTURES)
    await installation.until_file("held", running)
    ready = await installation.health(running)
    running.send(signal.SIGTERM)
    await installation.until_not_ready(running)
    asked_while_it_drains = await installation.health(running)
    (installation.directory / "go").touch()
    code = await running.end()

    assert (ready, asked_while_it_drains, code) == (200, 503, 0)
    assert await installation.is_quiet()
    assert await faults(installation, [request], nursery) == []


async def test_work_that_takes_longer_is_given_back_at_once(
    installation: Installation, nursery: Nursery
) -> None:
    request = installation.request("given-back")
    await installation.stranger.publish([request], running=False)
    first = await nursery.bear(
        installation.environment(drain_grace_s=0), installation.directory, point=AT_ITS_PICTURES
    )
    await installation.until_file("held", first)
    await stop(first)
    given_back = await installation.work_on(request)
    second = await nursery.bear(installation.environment(), installation.directory)
    await installation.until(None, "given-back")
    done = await installation.work_on(request)
    await stop(second)

    # Ready, without a lease that anybody would have to wait for, and as if it had not been tried.
    assert (given_back.state, given_back.lease_until_ms, given_back.attempt) == (State.READY, None, 0)
    assert (done.state, done.attempt) == (State.DONE, 1)
    assert await faults(installation, [request], nursery) == []


async def test_a_second_signal_ends_the_grace(installation: Installation, nursery: Nursery) -> None:
    request = installation.request("hurried")
    await installation.stranger.publish([request], running=False)
    environment = installation.environment(drain_grace_s=3_600)
    first = await nursery.bear(environment, installation.directory, point=AT_ITS_PICTURES)
    await installation.until_file("held", first)
    first.send(signal.SIGTERM)
    await installation.until_not_ready(first)
    first.send(signal.SIGINT)
    code = await first.end()
    given_back = await installation.work_on(request)

    assert code == 0
    assert (given_back.state, given_back.lease_until_ms, given_back.attempt) == (State.READY, None, 0)


async def claimed_by(installation: Installation, process: Victim) -> list[int]:
    """Return the work that a process still has, by its tables."""
    theirs = inbox.c.worker.contains(f":{process.pid}:"), inbox.c.state == State.WORKING
    async with installation.database.read() as connection:
        return list((await connection.execute(select(inbox.c.id).where(*theirs))).scalars())


async def has_taken_any(installation: Installation, process: Victim, requests: list[Event]) -> bool:
    """Say whether some are in a process's hands, or were; also when the others have left none of them."""
    asked = inbox.c.subject.in_([request.subject for request in requests])
    async with installation.database.read() as connection:
        rows = (await connection.execute(select(inbox.c.worker, inbox.c.state).where(asked))).all()
    theirs = [row for row in rows if row.worker and f":{process.pid}:" in row.worker]
    return bool(theirs) or [row.state for row in rows] == [State.DONE] * len(requests)


@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
@pytest.mark.parametrize("grace_s", [pytest.param(0, id="given-back"), pytest.param(30, id="finished")])
async def test_a_rolling_restart_lets_no_work_wait(
    installation: Installation, nursery: Nursery, grace_s: int
) -> None:
    def directory(number: int) -> Path:
        path = installation.directory / str(number)
        path.mkdir()
        return path

    async def started(number: int) -> Victim:
        where = directory(number)
        environment = installation.environment(
            drain_grace_s=grace_s, lease_s=LEASE_S, clipper_hands=2, data_directory=where
        )
        running = await nursery.bear(environment, where)
        await replace(installation, directory=where).until_ready(running)
        return running

    requests: list[Event] = []
    fleet = [await started(0), await started(1)]
    left: list[int] = []
    codes: list[int] = []
    for number in range(ROUNDS):
        oldest = fleet.pop(0)
        more = [installation.request(f"rolled-{number}-{each}") for each in range(CLIPS)]
        requests += more
        await installation.stranger.publish(more, running=True)
        while not await has_taken_any(installation, oldest, more):  # noqa: ASYNC110  # tables have no event
            await asyncio.sleep(LOOK_S)
        oldest.send(signal.SIGTERM)
        fleet.append(await started(2 + number))
        codes.append(await oldest.end())
        left += await claimed_by(installation, oldest)
    await installation.until(None, *[str(request.subject) for request in requests])
    work = [await installation.work_on(request) for request in requests]
    for running in fleet:
        running.send(signal.SIGTERM)
        codes.append(await running.end())

    assert left == []
    assert codes == [0] * len(codes)
    # Each was claimed by one attempt that counted: none was lost to a lease, none was done twice.
    assert {(row.state, row.attempt) for row in work} == {(State.DONE, 1)}
    assert len({row.worker for row in work}) > 1
    assert await faults(installation, requests, nursery) == []
