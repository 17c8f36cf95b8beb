"""What a process keeps for a moment does not outlive it for long."""

from __future__ import annotations

from pathlib import Path

from shared.runtime.scratch import scratch_directory


def test_a_scratch_directory_is_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as own:
        (own / "half.mp4").write_bytes(b"half")

    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_kept(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "half.mp4").write_bytes(b"half")
    with scratch_directory(tmp_path) as first:
        (first / "whole.mp4").write_bytes(b"whole")
        with scratch_directory(tmp_path) as second:
            kept = sorted(tmp_path.iterdir())

            assert kept == sorted([first, second])
            assert (first / "whole.mp4").read_bytes() == b"whole"
