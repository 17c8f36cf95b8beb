"""Take each rule of inbox and outbox out, and see that its test fails. Writes a report.

    make soak mutations                       all of them
    make soak mutations ARGS="--only lane"    those whose rule has the word in it
    make soak mutations ARGS="--page"         write docs/reliability/races.md, and run nothing

Each rule is taken out in a copy of the sources, never in the sources themselves. Needs SPOOL_TEST_AMQP,
SPOOL_TEST_POSTGRES and SPOOL_TEST_S3: eval "$(.ci/servers start)".
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.soak.rules import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reliability/races.md"
REPORTS = ROOT / "docs/reports"
COPIED = ("shared", "services", "spool", "tests", "bench", "pyproject.toml")
TRIES = 3  # a race is not lost every time: once in so many runs is enough
ENOUGH_S = 300

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
    """What became of one mutation. `caught`: its test failed."""

    mutation: Mutation
    caught: bool
    tries: int
    seconds: float


def page() -> str:
    """Return the page: every rule, where it stands, and its test."""
    lines = [INTRODUCTION, "| rule | where | test that fails without it |", "| --- | --- | --- |"]
    lines += [f"| {each.rule} | `{each.file}` | `{each.test}` |" for each in MUTATIONS]
    return "\n".join(lines) + "\n" + CLOCKS


async def main() -> int:
    """Run what was asked for. Returns 1 when a rule can be taken out unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a word of the rules to try")
    parser.add_argument("--page", action="store_true", help="write docs/reliability/races.md")
    parser.add_argument("--no-report", action="store_true")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page())
        return 0
    wanted = [each for each in MUTATIONS if arguments.only in f"{each.rule} {each.file} {each.test}"]
    stale = [each.rule for each in wanted if not each.applies_to(ROOT)]
    if stale:
        print(f"the sources have changed: these rules are not where tests/soak/rules.py looks: {stale}")
        return 1
    broken = await _fail_as_they_are(wanted)
    if broken:
        print(f"these fail without any mutation:\n{broken}")
        return 1
    results = []
    for mutation in wanted:
        results.append(await _try(mutation))
        last = results[-1]
        print(f"{'caught ' if last.caught else 'UNSEEN '} {last.seconds:5.0f} s  {mutation.rule}", flush=True)
        if not arguments.no_report:
            _write_report(results)
    return int(not all(result.caught for result in results))


async def _fail_as_they_are(mutations: Sequence[Mutation]) -> str:
    """Run every test once as it is. Returns what was said when any fails: then nothing would be shown."""
    tests = sorted({each.test for each in mutations})
    said = ""
    for _ in range(TRIES):
        code, said = await _run(ROOT, tests, limit_s=ENOUGH_S * 4)
        if code == 0:
            return ""
    return said[-3000:]


async def _try(mutation: Mutation) -> Result:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spool-mutation-") as name:
        copy = Path(name)
        for each in COPIED:
            _copy(ROOT / each, copy / each)
        mutation.apply(copy)
        code, tries = 0, 0
        while code == 0 and tries < TRIES:
            code, _ = await _run(copy, [mutation.test], limit_s=ENOUGH_S)
            tries += 1
    return Result(mutation, code == 1, tries, time.monotonic() - started)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


async def _run(directory: Path, tests: Sequence[str], *, limit_s: int) -> tuple[int, str]:
    """Run tests in a directory. Returns pytest's code, 1 for one that hangs, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests,
        cwd=directory, env=os.environ | {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit_s):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, "it hangs"
    return process.returncode or 0, said.decode(errors="replace")


def _write_report(results: Sequence[Result]) -> None:
    """Write what was found; of rules that were not tried this time, what was found before on the same day."""
    path = REPORTS / f"{datetime.now(UTC):%Y-%m-%d}-mutations.md"
    before = path.read_text().splitlines() if path.exists() else []
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")}
    rows |= {each.mutation.rule: _row(each) for each in results}
    kept = [rows[each.rule] for each in MUTATIONS if each.rule in rows]
    lines = [
        "# Each rule taken out",
        "",
        f"`make soak mutations`: {len(kept)} of {len(MUTATIONS)} rules were taken out, one at a time, and",
        f"{sum('| yes |' in row for row in kept)} times the rule's test failed. A race is not always lost:",
        f"a test was run up to {TRIES} times.",
        "",
        "| rule | test | failed | runs | seconds | at (UTC) |",
        "| --- | --- | --- | --- | --- | --- |",
        *kept,
    ]
    path.write_text("\n".join(lines) + "\n")


def _row(result: Result) -> str:
    cells = (
        result.mutation.rule,
        f"`{result.mutation.test}`",
        "yes" if result.caught else "**no**",
        str(result.tries),
        f"{result.seconds:.0f}",
        f"{datetime.now(UTC):%H:%M}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
