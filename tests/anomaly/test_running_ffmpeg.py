"""Its process is killed, or loses its claim, while an ffmpeg works for it: the ffmpeg does not work on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from spool.camera import Camera
from tests.anomaly.inspection import faults
from tests.anomaly.installation import LOOK_S, Addresses, Installation, open_installation, stop
from tests.anomaly.nursery import Nursery, Victim
from tests.anomaly.recordings import record_footage

# Cannot be copied into a clip: one ffmpeg reads it, through its Spool, and encodes it anew.
FOREIGN = Camera(width=640, height=360, gop_frames=15, b_frames=0, video_codec="mpeg4")
LEASE_S = 3  # of who stands still; the other one keeps the usual one, also on a busy machine


@pytest.fixture
async def foreign_installation(
    addresses: Addresses, tmp_path: Path, nursery: Nursery
) -> AsyncIterator[Installation]:
    """Open an installation whose recordings have to be encoded anew."""
    footage = await record_footage(tmp_path, FOREIGN)
    async with open_installation(tmp_path / "spool", addresses, footage) as opened:
        await opened.announce_sources(nursery)
        yield opened


def ffmpegs_of(victim: Victim) -> dict[int, str]:
    """Return the ffmpegs that a process has started: pid and command line."""
    commands = {}
    for pid in Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split():
        with suppress(OSError):
            commands[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return {pid: command for pid, command in commands.items() if "ffmpeg" in command.split("\0", 1)[0]}


async def until_it_encodes(victim: Victim) -> None:
    while not any("libx264" in command for command in ffmpegs_of(victim).values()):
        assert not victim.has_ended(), victim.log.read_text()[-4000:]
        await asyncio.sleep(0.005)  # it runs for less than a second


async def test_a_killed_process_takes_its_ffmpeg_and_its_draft_along(
    foreign_installation: Installation, nursery: Nursery
) -> None:
    installation = foreign_installation
    request = installation.request("killed")
    await installation.stranger.publish([request], running=False)
    first = await nursery.bear(installation.environment(), installation.directory)
    await until_it_encodes(first)
    first.send(signal.SIGKILL)
    await first.end()
    left = await nursery.orphans()
    await installation.let_leases_run_out()
    second = await nursery.bear(installation.environment(), installation.directory)
    await installation.until(second.has_ended, "killed")
    await stop(second)

    assert left == []
    assert await faults(installation, [request], nursery) == []


@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
async def test_the_ffmpeg_of_a_lost_claim_is_ended(
    foreign_installation: Installation, nursery: Nursery
) -> None:
    installation = foreign_installation
    request = installation.request("lost")
    await installation.stranger.publish([request], running=False)
    first = await nursery.bear(installation.environment(lease_s=LEASE_S), installation.directory)
    await until_it_encodes(first)
    first.send(signal.SIGSTOP)
    still_there = ffmpegs_of(first)  # it waits for its source, which its Spool does not send
    for pid in still_there:
        os.kill(pid, signal.SIGSTOP)  # so that it cannot come to its own end, and has to be brought to one
    (installation.directory / "second").mkdir()
    second = await nursery.bear(installation.environment(), installation.directory / "second")
    await installation.until(second.has_ended, "lost")
    first.send(signal.SIGCONT)
    while ffmpegs_of(first):  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(LOOK_S)
    await stop(first)
    await stop(second)

    assert len(still_there) == 1
    assert await faults(installation, [request], nursery) == []
    assert len(installation.stranger.heard) == 1
