"""Where a benchmark's real servers are: as the environment says, or started for it and stopped at its end."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 1200  # a first start installs what it needs, and builds MinIO
EXPORT = "export "


@contextmanager
def addresses(*variables: str) -> Iterator[tuple[str, ...]]:
    """Yield the values of the variables; where one is not set, start `.ci/servers` for the time of the bench.

    Ends the program, saying what it needs, when they cannot be started.
    """
    if all(os.environ.get(variable) for variable in variables):
        yield tuple(os.environ[variable] for variable in variables)
        return
    print(f"this bench needs real servers ({', '.join(variables)}); .ci/servers starts them", file=sys.stderr)
    were_running = _servers("env", quiet=True).returncode == 0
    started = _servers("start")
    if started.returncode != 0:
        sys.exit("no servers to measure on: see above, or set the addresses yourself, as .ci/servers says")
    try:
        found = _exports(started.stdout)
        yield tuple(found[variable] for variable in variables)
    finally:
        if not were_running:
            _servers("stop")


def _servers(verb: str, *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own script
        [str(ROOT / ".ci/servers"), verb],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        check=False,
        timeout=START_LIMIT_S,
    )


def _exports(lines: str) -> dict[str, str]:
    """Read `export NAME='value' OTHER=value` lines."""
    pairs = [word for line in lines.splitlines() for word in shlex.split(line.removeprefix(EXPORT))]
    return dict(pair.split("=", 1) for pair in pairs)
