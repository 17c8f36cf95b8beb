"""Where a Spool says how to reach it: found while it runs, gone after it, and never somebody else's."""

from __future__ import annotations

from pathlib import Path

from spool.running_file import announced, running_url


def test_the_address_is_found_while_the_process_runs_and_not_after(tmp_path: Path) -> None:
    with announced("http://127.0.0.1:1", tmp_path):
        while_running = running_url(tmp_path)

    assert while_running == "http://127.0.0.1:1"
    assert running_url(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_to_stop_leaves_the_address_of_the_other(tmp_path: Path) -> None:
    first = announced("http://127.0.0.1:1", tmp_path)
    second = announced("http://127.0.0.1:2", tmp_path)
    first.__enter__()
    second.__enter__()

    first.__exit__(None, None, None)
    while_second_runs = running_url(tmp_path)
    second.__exit__(None, None, None)

    assert while_second_runs == "http://127.0.0.1:2"
    assert running_url(tmp_path) is None
