"""kill -9 of the process that owns the local bus: what was confirmed stays, what was acknowledged is gone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from shared.bus.local import LocalBus
from shared.bus.message import Message, Subscription

ASKED = Subscription("clipper", "asked", ("clip_requested",), hands=64)
CONFIRMED_BEFORE_KILL = 300


async def publish_and_work(path: Path) -> None:
    """Publish from many tasks and acknowledge every third message, saying each confirmed step on stdout."""
    bus = await LocalBus.open(path)
    await bus.declare([ASKED])

    async def publish(lane: int) -> None:
        for number in range(1_000_000):
            message_id = f"{lane}-{number}"
            await bus.publish([Message(message_id, "clip_requested", b"{}" * 300, "text", mandatory=True)])
            print(f"published {message_id}", flush=True)

    async def work() -> None:
        while True:
            deliveries = await bus.receive(ASKED, at_most=3, wait_s=10)
            await bus.acknowledge(deliveries[:1])
            print(f"acknowledged {deliveries[0].message_id}", flush=True)
            await bus.give_back(deliveries[1:])

    await asyncio.gather(work(), *(publish(lane) for lane in range(16)))


@pytest.mark.parametrize("round_number", range(3))
async def test_what_was_confirmed_outlives_kill_9(tmp_path: Path, round_number: int) -> None:
    path = tmp_path / "bus.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.anomaly.test_local_bus_kill",
        str(path),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(CONFIRMED_BEFORE_KILL * (round_number + 1))]
    process.kill()
    lines += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    steps = [line.decode() for line in lines if line.endswith(b"\n")]  # the last one may be cut short
    published = {step.split()[1] for step in steps if step.startswith("published")}
    acknowledged = {step.split()[1] for step in steps if step.startswith("acknowledged")}
    left = await everything(path)

    assert len(published) > CONFIRMED_BEFORE_KILL // 2
    assert acknowledged
    # The one worker may have acknowledged one more message, and died before it said so.
    assert len(published - acknowledged - left) <= 1
    assert not acknowledged & left


async def everything(path: Path) -> set[str | None]:
    """Receive all that is left, as the next process would."""
    bus = await LocalBus.open(path)
    await bus.declare([ASKED])
    found: list[str | None] = []
    while deliveries := await bus.receive(ASKED, at_most=64, wait_s=0):
        found += [delivery.message_id for delivery in deliveries]
        await bus.acknowledge(deliveries)
    await bus.close()

    assert len(found) == len(set(found)), "a message came twice"

    return set(found)


if __name__ == "__main__":
    asyncio.run(publish_and_work(Path(sys.argv[1])))
