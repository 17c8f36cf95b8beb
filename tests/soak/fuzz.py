"""Feed damaged MP4 files to the reader of indexes, very many of them. Writes a report.

    make soak fuzz                          100,000 inputs, some minutes
    make soak fuzz ARGS="--inputs 1000 --no-report"

With `pip install -e .[fuzz]` the damages are steered by atheris (libFuzzer) towards code that was not run
before; without it they are random. Each input is a recording whose boxes were damaged, or with atheris any
bytes as well. What has to hold: it is planned, not to be copied, or refused; no other error, no read outside
of the object, no input that takes more than two seconds, no more than 64 MiB of memory.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.media.hostile import MemoryStorage, Sample, damaged, read_and_plan, record_samples

REPORTS = Path(__file__).parents[2] / "docs/reports"
FAILED = Path(__file__).parents[2] / "build/fuzz-failed.mp4"
MIB = 1 << 20
MOST_MIB = 64  # that one input takes
LONGEST_S = 2.0
TRACED_ONE_IN = 10  # whose memory is followed, which makes them slow
TOLD_EVERY = 5000
ANY_BYTES_ONE_IN = 10


def _keep(data: bytes) -> None:
    """Leave an input that broke something, to be tried again."""
    FAILED.parent.mkdir(exist_ok=True)
    FAILED.write_bytes(data)


@dataclass
class Run:
    """The inputs of one process, and what came of them."""

    directory: Path
    samples: list[Sample]
    wanted: int
    ends: Counter[str] = field(default_factory=Counter)
    inputs: int = 0
    longest_s: float = 0.0
    cpu_s: float = 0.0
    most_mib: float = 0.0
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def __post_init__(self) -> None:
        self._storage = MemoryStorage(self.directory)

    def take(self, data: bytes) -> None:
        """Read one input. Raises whatever should not have happened."""
        self._storage.put(data)
        traced = self.inputs % TRACED_ONE_IN == 0
        if traced:
            tracemalloc.start()
        began_s = time.process_time()
        with ExitStack() as undo:
            undo.callback(_keep, data)
            end = self.runner.run(read_and_plan(self._storage))
            undo.pop_all()
        took_s = time.process_time() - began_s
        if traced:
            self.most_mib = max(self.most_mib, tracemalloc.get_traced_memory()[1] / MIB)
            tracemalloc.stop()
        self.ends[end] += 1
        self.inputs += 1
        self.longest_s = max(self.longest_s, took_s)
        self.cpu_s += took_s
        if self.inputs % TOLD_EVERY == 0:
            print(self.result, flush=True)

    def take_random(self, generator: random.Random) -> None:
        self.take(damaged(generator.choice(self.samples), generator.randrange))

    @property
    def result(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "ends": dict(self.ends),
            "longest_s": round(self.longest_s, 3),
            "cpu_s": round(self.cpu_s, 1),
            "most_mib": round(self.most_mib, 1),
        }


def run_random(run: Run, seed: int) -> None:
    generator = random.Random(seed)
    while run.inputs < run.wanted:
        run.take_random(generator)


def run_steered(run: Run, seed: int, result: Path) -> None:
    """Let atheris choose the damages. It ends the process by itself, so the result is written before."""
    atheris = importlib.import_module("atheris")
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("shared.media.mp4"):
            _instrument(atheris, module)

    def take(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        if provider.ConsumeIntInRange(0, ANY_BYTES_ONE_IN - 1) == 0:
            run.take(provider.ConsumeBytes(provider.remaining_bytes()))
        else:
            sample = run.samples[provider.ConsumeIntInRange(0, len(run.samples) - 1)]
            run.take(damaged(sample, lambda count: provider.ConsumeIntInRange(0, count - 1)))
        if run.inputs == run.wanted:
            result.write_text(json.dumps(run.result), encoding="utf-8")
            os._exit(0)

    corpus = run.directory / "corpus"
    corpus.mkdir()
    for number, sample in enumerate(run.samples):
        # The first byte of the data is consumed last: integers are taken from the end.
        (corpus / f"{number}").write_bytes(sample.whole + b"\0")
    options = ["fuzz", str(corpus), f"-seed={seed}", "-max_len=65536", "-rss_limit_mb=2048", "-timeout=20"]
    atheris.Setup([*options, "-print_final_stats=0", "-verbosity=0"], take)
    atheris.Fuzz()


def _instrument(atheris: Any, module: Any) -> None:
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, type):
            for inner, method in vars(value).items():
                if hasattr(method, "__code__"):
                    setattr(value, inner, atheris.instrument_func(method))
        elif hasattr(value, "__code__"):
            setattr(module, name, atheris.instrument_func(value))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="without atheris, even where it is installed")
    parser.add_argument("--no-report", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    steered = not options.random and importlib.util.find_spec("atheris") is not None
    if options.child:
        return run_child(Path(options.child), options.inputs, options.seed, steered=steered)
    with tempfile.TemporaryDirectory(prefix="spool-fuzz-") as directory:
        command = [sys.executable, "-m", "tests.soak.fuzz", "--child", directory, *arguments]
        began_s = time.monotonic()
        ended = subprocess.run(command, check=False)
        result = Path(directory) / "result.json"
        if ended.returncode or not result.exists():
            print(f"FAILED: the input is in {FAILED}")
            return 1
        found = json.loads(result.read_text(encoding="utf-8"))
    found["wall_s"] = round(time.monotonic() - began_s)
    holds = found["most_mib"] <= MOST_MIB and found["longest_s"] <= LONGEST_S
    text = report(found, seed=options.seed, steered=steered, holds=holds)
    print(text)
    if not options.no_report:
        (REPORTS / f"{datetime.now(UTC):%Y-%m-%d}-fuzz.md").write_text(text, encoding="utf-8")
    return 0 if holds else 1


def run_child(directory: Path, inputs: int, seed: int, *, steered: bool) -> int:
    run = Run(directory, asyncio.run(record_samples(directory)), inputs)
    result = directory / "result.json"
    if steered:
        run_steered(run, seed, result)
    run_random(run, seed)
    result.write_text(json.dumps(run.result), encoding="utf-8")
    return 0


def report(found: dict[str, Any], *, seed: int, steered: bool, holds: bool) -> str:
    how = "steered by atheris (libFuzzer) towards code that was not run before" if steered else "random"
    arguments = f"--inputs {found['inputs']} --seed {seed}{'' if steered else ' --random'}"
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    ends = "\n".join(f"| {end} | {count:,} |" for end, count in sorted(found["ends"].items()))
    return f"""\
# Damaged MP4 files

`make soak fuzz ARGS="{arguments}"` on {datetime.now(UTC):%Y-%m-%d},
{machine} shared with other work.
The damages were {how}.
The recordings were a progressive file with its index at the end, one with it in front, and files that ffmpeg
fragmented in five ways. Each input had up to four damages where a file has structure: sizes, kinds and
fields of boxes, bytes removed, repeated or cut off. Of each input the index was read for two cuts,
checked, and a clip planned, over a store that fails the run when a byte outside of the object is asked for.

| what came of it, of two cuts | inputs |
| --- | --- |
{ends}

- {found["inputs"]:,} inputs in {found["wall_s"]:,} s; the reader took {found["cpu_s"]:,} s of CPU.
- No error but refusals, and no read outside of the object.
- The longest input took {found["longest_s"]} s of CPU (limit {LONGEST_S:g}).
- The most memory that an input took was {found["most_mib"]} MiB (limit {MOST_MIB}); one in {TRACED_ONE_IN}
  was traced.
- {"All of it holds." if holds else "NOT all of it holds."}
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
