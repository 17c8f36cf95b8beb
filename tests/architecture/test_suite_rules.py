"""What conftest lays on every test holds: a hang fails, a skip where none is allowed too, a count is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
ROOT = CONFTEST.parents[1]

PASSES = "def test_passes():\n    pass\n"
SKIPS = "import pytest\n\ndef test_skips():\n    pytest.skip('no server')\n"
SKIPS_WHOLE = "import pytest\n\npytest.skip('no server', allow_module_level=True)\n"
FAILS_AS_EXPECTED = "import pytest\n\n@pytest.mark.xfail\ndef test_fails():\n    raise ValueError\n"
COUNTS = "def test_counts(tell_count):\n    tell_count('10 asked, 10 answers')\n"
HANGS = """
import asyncio, pytest

@pytest.mark.limit(1)
async def test_hangs():
    await asyncio.Event().wait()

def test_comes_after():
    pass
"""


def run_suite(tmp_path: Path, test: str, *, allow_skips: bool) -> subprocess.CompletedProcess[str]:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nmarkers =\n    limit(seconds)\n")
    (tmp_path / "test_it.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={"SPOOL_TEST_NO_SKIPS": "0" if allow_skips else "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("test", "allow_skips", "code"),
    [
        pytest.param(PASSES, False, 0, id="nothing skipped"),
        pytest.param(PASSES + SKIPS, True, 0, id="a skip, allowed"),
        pytest.param(PASSES + SKIPS, False, 1, id="a skip"),
        pytest.param(SKIPS_WHOLE, False, 1, id="a skipped module"),
        pytest.param(PASSES + FAILS_AS_EXPECTED, False, 1, id="an expected failure"),
    ],
)
def test_a_run_that_allows_no_skips_fails_on_one(
    tmp_path: Path, test: str, allow_skips: bool, code: int
) -> None:
    run = run_suite(tmp_path, test, allow_skips=allow_skips)

    assert run.returncode == code, run.stdout


def test_a_test_that_hangs_fails_alone(tmp_path: Path) -> None:
    run = run_suite(tmp_path, HANGS, allow_skips=True)

    assert "the test did not end within 1 s" in run.stdout
    assert "1 failed, 1 passed" in run.stdout


@pytest.mark.parametrize(
    ("then", "ending"),
    [pytest.param("", "1 passed", id="green"), pytest.param("    raise ValueError\n", "1 failed", id="red")],
)
def test_what_a_test_counted_is_told_at_the_end_of_the_run(tmp_path: Path, then: str, ending: str) -> None:
    run = run_suite(tmp_path, COUNTS + then, allow_skips=False)

    assert "test_it.py::test_counts: 10 asked, 10 answers\n" in run.stdout
    assert ending in run.stdout
