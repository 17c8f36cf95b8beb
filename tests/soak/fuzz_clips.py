"""Cut clips of damaged recordings in every container, very many of them. Writes a report.

    make soak fuzz_clips                          4,200 inputs, some twenty minutes
    make soak fuzz_clips ARGS="--each 10 --no-report"

What has to hold: each becomes a clip that is what it says, or is refused with an error that names the source;
no other error, none that would be tried again for ever, nothing left in the store, no clip that takes longer
than a minute, and no more than 64 MiB of memory that stays.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from shared.kernel.errors import SpoolError
from shared.media.port import Precision
from tests.media.damaged_clips import CONTAINERS, cut_damaged, damage, record_containers
from tests.media.studio import Studio, open_studio

REPORTS = Path(__file__).parents[2] / "docs/reports"
FAILED = Path(__file__).parents[2] / "build/fuzz-failed"
MOST_MIB = 64
AT_ONCE = 2
FAULTS = (AssertionError, ArithmeticError, LookupError, OSError, SpoolError, TypeError, ValueError)
WARM_UP = 100  # inputs, after which memory is no longer to grow


@dataclass
class Found:
    """What came of the inputs so far."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    longest_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    warm_mib: float = 0.0

    @property
    def inputs(self) -> int:
        return sum(counter.total() for counter in self.ends.values())

    @property
    def growth_mib(self) -> float:
        return _peak_mib() - self.warm_mib if self.warm_mib else 0.0

    @property
    def holds(self) -> bool:
        return not self.faults and self.growth_mib <= MOST_MIB

    def count(self, name: str, end: str, took_s: float) -> None:
        self.ends.setdefault(name, Counter())[end] += 1
        self.longest_s = max(self.longest_s, took_s)
        if self.inputs == WARM_UP:
            self.warm_mib = _peak_mib()
        if self.inputs % 200 == 0:
            print(f"{self.inputs} inputs, {len(self.faults)} faults", flush=True)


async def fuzz(directory: Path, each: int, seed: int) -> Found:
    """Cut `each` damaged recordings of every container, `AT_ONCE` containers at a time."""
    studio = await open_studio(directory)
    recordings = await record_containers(directory)
    found, turns = Found(), asyncio.Semaphore(AT_ONCE)

    async def all_of(name: str) -> None:
        async with turns:
            for number in range(each):
                await _try(studio, found, name, recordings[name], f"{seed} {name} {number}")

    async with asyncio.TaskGroup() as tasks:
        for name in CONTAINERS:
            tasks.create_task(all_of(name))
    await studio.storage.close()
    return found


async def _try(studio: Studio, found: Found, name: str, whole: bytes, seed: str) -> None:
    dice = Random(seed)
    damaged, precision = damage(whole, dice), dice.choice(list(Precision))
    began_s = time.monotonic()
    try:
        end = await cut_damaged(studio, name, damaged, precision)
    except (
        AssertionError,
        ArithmeticError,
        LookupError,
        OSError,
        SpoolError,
        TypeError,
        ValueError,
    ) as fault:
        end = f"FAULT {type(fault).__name__}"
        found.faults.append(f"{seed} ({precision}): {fault!r}")
        FAILED.mkdir(parents=True, exist_ok=True)
        (FAILED / f"{seed.replace(' ', '-')}-{precision}").write_bytes(damaged)
    found.count(name, end, time.monotonic() - began_s)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(found: Found, *, each: int, seed: int, wall_s: float) -> str:
    kinds = sorted({kind for counter in found.ends.values() for kind in counter})
    rows = "\n".join(
        f"| {name} | " + " | ".join(str(found.ends[name][kind]) for kind in kinds) + " |"
        for name in CONTAINERS
    )
    faults = "\n".join(f"- {fault}" for fault in found.faults[:50])
    return f"""\
# Clips of damaged recordings

`make soak fuzz_clips ARGS="--each {each} --seed {seed}"` on {datetime.now(UTC):%Y-%m-%d},
Python {platform.python_version()}, machine shared with other work. Two seconds of picture and sound in each
container, one to four damages each (bytes set, zeroed, removed, repeated, cut off; half of them in the head),
a precision by the dice, cut and proven by the engine as the clipper does.

| container | {" | ".join(kinds)} |
| --- |{" --- |" * len(kinds)}
{rows}

- {found.inputs:,} inputs in {wall_s:,.0f} s; the longest took {found.longest_s:.1f} s, beside another.
- Memory of the process grew by {found.growth_mib:.0f} MiB after the first {WARM_UP} (limit {MOST_MIB});
  that of ffmpeg is limited by the kernel.
- {"All of it holds." if found.holds else "NOT all of it holds."}
{faults}""".rstrip()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--each", type=int, default=300, help="inputs of each container")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-report", action="store_true")
    options = parser.parse_args(arguments)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spool-fuzz-") as directory:
        found = asyncio.run(fuzz(Path(directory), options.each, options.seed))
    text = report(found, each=options.each, seed=options.seed, wall_s=time.monotonic() - began_s)
    print(text)
    if not options.no_report:
        (REPORTS / f"{datetime.now(UTC):%Y-%m-%d}-fuzz-clips.md").write_text(f"{text}\n", encoding="utf-8")
    return 0 if found.holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
