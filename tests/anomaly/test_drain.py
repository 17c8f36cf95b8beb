"""SIGTERM in the middle of a clip: the work is finished, or given back so that nobody waits for a lease."""

from __future__ import annotations

import signal

from shared.database.tables import State
from tests.anomaly.inspection import faults
from tests.anomaly.installation import Installation, stop
from tests.anomaly.killing import KillPoint
from tests.anomaly.nursery import Nursery

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
