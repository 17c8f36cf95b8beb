"""One process at a time on a data directory, and none after its holder is gone, however it went."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.kernel.errors import Refused
from shared.runtime.lock import held_directory

HOLDER = """
import sys
from pathlib import Path
from shared.runtime.lock import held_directory

with held_directory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = [sys.executable, "-c", HOLDER, str(directory)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_held_directory_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    with (
        holding_process(tmp_path / "data") as holder,
        pytest.raises(Refused, match=rf"in use by the process {holder.pid} .*SPOOL_DATA_DIRECTORY"),
        held_directory(tmp_path / "data"),
    ):
        pytest.fail("two hold one directory")


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with holding_process(tmp_path) as holder:
        holder.kill()
        holder.wait()

        with held_directory(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_is_free_again_after_its_holder_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="failed"), held_directory(tmp_path):
        raise RuntimeError("failed")

    with held_directory(tmp_path), pytest.raises(Refused), held_directory(tmp_path):
        pytest.fail("held twice by one process")


def test_a_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    with held_directory(tmp_path):
        # Even one that is given everything its parent has open: the lock's descriptor ends at exec.
        child = subprocess.Popen(
            [sys.executable, "-c", "input(1)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
    try:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"1"
        with held_directory(tmp_path):
            assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_two_directories_do_not_know_of_each_other(tmp_path: Path) -> None:
    with held_directory(tmp_path / "a"), held_directory(tmp_path / "b"):
        assert (tmp_path / "a" / "lock").read_text() == (tmp_path / "b" / "lock").read_text()
