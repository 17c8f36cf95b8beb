"""Take each rule of inbox and outbox out, and see that its test fails. Writes a report.

    make soak mutations                       all of them
    make soak mutations ARGS="--only lane"    those whose rule has the word in it
    make soak mutations ARGS="--missing"      those that today's report does not know as caught
    make soak mutations ARGS="--page"         write docs/reliability/races.md, and run nothing

Each rule is taken out in a copy of the sources, never in the sources themselves. Needs the servers of
eval "$(.ci/servers start)". `--at-once 2` tries two rules at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.soak.mutation import Mutation
from tests.soak.rules import MUTATIONS

ROOT = Path(__file__).parents[2]
RULES = "tests/soak/rules.py and further_rules.py"
PAGE = ROOT / "docs/reliability/races.md"
REPORTS = ROOT / "docs/reports"
COPIED = ("shared", "services", "spool", "tests", "bench", "pyproject.toml")
TRIES = 3  # a race is not lost every time: once in so many runs is enough
ENOUGH_S = 300
LONGEST_SAYING = 110  # characters of what a test said, in the report

INTRODUCTION = """\
# The races, and the tests that hold them

Each rule of inbox and outbox stands here with the test that fails when the rule is taken out.
`make soak mutations` does that, one rule after the other, in a copy of the sources; what it found is in
[docs/reports](../reports). This page is written by `make soak mutations ARGS="--page"`.
"""
CLOCKS = """
## What a clock that jumps can still do

Leases go by the clock of the database, hands by the monotonic clock of their process. A worker whose clock
jumps keeps its claims (`tests/anomaly/test_clock_jumps.py`). Times that a handler names itself (`Later`) are
times of the wall: when the clock of an embedded installation is set back by an hour, work that sleeps sleeps
that much longer, and a failure is tried again that much later. Nothing of it is lost.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutation. `said`: how its test failed; None when it did not."""

    mutation: Mutation
    said: str | None
    tries: int
    seconds: float


def page() -> str:
    """Return the page: every rule, where it stands, and its test."""
    lines = [INTRODUCTION, "| rule | where | test that fails without it |", "| --- | --- | --- |"]
    lines += [f"| {each.rule} | `{each.file}` | `{each.test}` |" for each in MUTATIONS]
    return "\n".join(lines) + "\n" + CLOCKS


async def main() -> int:
    """Run what was asked for. Returns 1 when a rule can be taken out unnoticed."""
    arguments = _arguments()
    if arguments.page:
        PAGE.write_text(page())
        return 0
    wanted = [each for each in MUTATIONS if arguments.only in f"{each.rule} {each.file} {each.test}"]
    if arguments.missing:
        wanted = [each for each in wanted if "| yes |" not in _rows_before().get(each.rule, "")]
    stale = [each.rule for each in wanted if not each.applies_to(ROOT)]
    if stale:
        print(f"the sources have changed: these rules are not where {RULES} look: {stale}")
        return 1
    tests = sorted({each.test for each in wanted})
    shares = [tests[place :: arguments.at_once] for place in range(arguments.at_once)]
    broken = await asyncio.gather(*(_fail_as_they_are(each, place) for place, each in enumerate(shares)))
    if any(broken):
        print("these fail without any mutation:", *broken, sep="\n")
        return 1
    results = await _try_all(wanted, at_once=arguments.at_once, report=not arguments.no_report)
    return int(any(result.said is None for result in results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a word of the rules to try")
    parser.add_argument("--missing", action="store_true", help="only those not caught today")
    parser.add_argument("--at-once", type=int, choices=(1, 2), default=1, help="rules at a time")
    parser.add_argument("--page", action="store_true", help="write docs/reliability/races.md")
    parser.add_argument("--no-report", action="store_true")
    return parser.parse_args()


async def _fail_as_they_are(tests: Sequence[str], place: int) -> str:
    """Run every test once as it is. Returns what was said when any fails: then nothing would be shown."""
    said = ""
    for _ in range(TRIES if tests else 0):
        code, said = await _run(ROOT, tests, limit_s=ENOUGH_S * 4, place=place)
        if code == 0:
            return ""
    return said[-3000:]


async def _try_all(mutations: Sequence[Mutation], *, at_once: int, report: bool) -> list[Result]:
    results: list[Result] = []
    left = iter(mutations)
    async with asyncio.TaskGroup() as group:
        for place in range(at_once):
            group.create_task(_try_some(left, results, place=place, report=report))
    return results


async def _try_some(left: Iterator[Mutation], results: list[Result], *, place: int, report: bool) -> None:
    for mutation in left:
        result = await _try(mutation, place=place)
        results.append(result)
        found = (
            f"UNSEEN  {result.seconds:5.0f} s" if result.said is None else f"caught  {result.seconds:5.0f} s"
        )
        print(f"{found}  {mutation.rule}: {result.said}", flush=True)
        if report:
            _write_report(result)


async def _try(mutation: Mutation, *, place: int) -> Result:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spool-mutation-") as name:
        copy = Path(name)
        for each in COPIED:
            _copy(ROOT / each, copy / each)
        mutation.apply(copy)
        said: str | None = None
        tries = 0
        while said is None and tries < TRIES:
            code, output = await _run(copy, [mutation.test], limit_s=ENOUGH_S, place=place)
            said = _failure(output) if code == 1 else None
            tries += 1
    return Result(mutation, said, tries, time.monotonic() - started)


def _failure(output: str) -> str | None:
    """Return how a test failed. None when none did: that one could not be set up shows nothing."""
    if output == HANGS:
        return HANGS
    failed = [line for line in output.splitlines() if line.startswith("FAILED ")]
    if not failed:
        return None
    return (failed[0].partition(" - ")[2] or "failed").replace("|", "/").replace("`", "'")[:LONGEST_SAYING]


HANGS = "it hangs"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


async def _run(directory: Path, tests: Sequence[str], *, limit_s: int, place: int) -> tuple[int, str]:
    """Run tests in a directory. Returns pytest's code, 1 for one that hangs, and what it said.

    A whole Spool names its queues for all of a virtual host: each place has one of its own.
    """
    host = os.environ.get("SPOOL_TEST_AMQP_SECOND" if place else "SPOOL_TEST_AMQP", "")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests,
        cwd=directory,
        env=os.environ | {
            "PYTHONPATH": str(directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SPOOL_TEST_AMQP": host,
            "SPOOL_TEST_NO_SKIPS": "1",
            "COLUMNS": "300",
        },
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit_s):
            said, _ = await process.communicate()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return 1, HANGS
    return process.returncode or 0, said.decode(errors="replace")


def _report() -> Path:
    return REPORTS / f"{datetime.now(UTC):%Y-%m-%d}-mutations.md"


def _rows_before() -> dict[str, str]:
    """Return the rows of today's report, by their rule."""
    before = _report().read_text().splitlines() if _report().exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")}


def _write_report(result: Result) -> None:
    """Write what was found; of rules that were not tried this time, what was found before on the same day."""
    rows = _rows_before() | {result.mutation.rule: _row(result)}
    kept = [rows[each.rule] for each in MUTATIONS if each.rule in rows]
    survived = [row for row in kept if "| yes |" not in row]
    table = "\n".join(kept)
    _report().write_text(
        f"""\
# Each rule taken out

`make soak mutations` on {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, \
{os.cpu_count()} cores shared with other work.
Of {len(MUTATIONS)} rules {len(kept)} were taken out, one at a time, each in a copy of the sources of the
commit in its row. {len(kept) - len(survived)} were caught: the rule's test failed. {len(survived)} survived.
A race is not always lost, so a test was run up to {TRIES} times. With the rule in place all passed.

| rule | test | failed | runs | seconds | at (UTC) | commit | what it said |
| --- | --- | --- | --- | --- | --- | --- | --- |
{table}
"""
    )


def _row(result: Result) -> str:
    cells = (
        result.mutation.rule,
        f"`{result.mutation.test}`",
        "**no**" if result.said is None else "yes",
        str(result.tries),
        f"{result.seconds:.0f}",
        f"{datetime.now(UTC):%H:%M}",
        _commit(),
        f"`{result.said}`" if result.said else "",
    )
    return f"| {' | '.join(cells)} |"


def _commit() -> str:
    """Return the commit that was copied, with a + when its sources were changed."""
    command = ("git", "describe", "--always", "--exclude=*", "--dirty=+")
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return said.stdout.strip()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
