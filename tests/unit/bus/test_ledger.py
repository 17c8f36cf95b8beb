"""The file of the local bus: jobs share a commit and fail alone, and the file is as small as its content."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from shared.bus.ledger import SLICE_PAGES, Ledger
from shared.bus.message import Message, Subscription
from shared.bus.port import Unroutable
from shared.kernel.errors import Conflict, Corrupt, Unavailable

Open = Callable[[Path | None], Ledger]

ASKED = Subscription("clipper", "asked", ("clip_requested",))


def command(message_id: str, name: str = "clip_requested", body: bytes = b"{}") -> Message:
    return Message(message_id, name, body, "application/json", mandatory=True)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close at the end every ledger that a test has opened."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def bound(opened: ExitStack) -> Open:
    """Return how to open a ledger whose one queue is bound."""

    def open_bound(path: Path | None) -> Ledger:
        ledger = opened.enter_context(closing(Ledger(path)))
        ledger.run([partial(ledger.bind, [ASKED])])
        return ledger

    return open_bound


def ids(ledger: Ledger) -> list[str]:
    return [row.message_id for row in ledger.fetch(ASKED.queue, (), after=0, at_most=100)]


def test_a_job_that_refuses_fails_alone(bound: Open) -> None:
    ledger = bound(None)
    outcomes = ledger.run(
        [
            partial(ledger.publish, [command("a")]),
            partial(ledger.publish, [command("b"), command("c", "merge_requested")]),
            partial(ledger.publish, [command("d")]),
        ]
    )

    assert [type(outcome) for outcome in outcomes] == [list, Unroutable, list]
    assert ids(ledger) == ["a", "d"]


def test_of_large_messages_few_are_read_ahead(bound: Open) -> None:
    ledger = bound(None)
    ledger.run([partial(ledger.publish, [command(f"{number}", body=bytes(400_000)) for number in range(9)])])
    small = ledger.fetch(ASKED.queue, (), after=0, at_most=1, ahead=8)
    asked = ledger.fetch(ASKED.queue, (), after=0, at_most=6, ahead=3)

    assert [row.id for row in small] == [1, 2, 3]
    assert [row.id for row in asked] == [1, 2, 3, 4, 5, 6]


def test_many_messages_are_kept_in_their_order(bound: Open) -> None:
    ledger = bound(None)
    ledger.run([partial(ledger.publish, [command(f"{number}") for number in range(75)])])

    assert ids(ledger) == [f"{number}" for number in range(75)]


def test_a_disk_that_is_full_keeps_nothing_of_the_group_and_later_groups_succeed(
    bound: Open, tmp_path: Path
) -> None:
    ledger = bound(tmp_path / "bus.db")
    pages = ledger._number("PRAGMA page_count")  # only SQLite itself can stand for a full disk
    ledger._number(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(Unavailable, match="full"):
        ledger.run(
            [
                partial(ledger.publish, [command("a")]),
                partial(ledger.publish, [command("b", body=bytes(99999))]),
            ]
        )
    ledger.run([partial(ledger.publish, [command("c")])])

    assert ids(ledger) == ["c"]


def test_what_was_given_back_is_read_before_what_is_new(bound: Open) -> None:
    ledger = bound(None)
    ledger.run([partial(ledger.publish, [command(f"{number}") for number in range(6)])])
    rows = ledger.fetch(ASKED.queue, (2, 4), after=5, at_most=3)

    assert [row.message_id for row in rows] == ["1", "3", "5"]


def test_a_row_that_was_acknowledged_meanwhile_is_not_read(bound: Open) -> None:
    ledger = bound(None)
    ledger.run([partial(ledger.publish, [command("a"), command("b")])])
    ledger.run([partial(ledger.forget, [1])])

    assert [row.message_id for row in ledger.fetch(ASKED.queue, (1,), after=2, at_most=8)] == []


def test_a_number_is_never_used_twice(bound: Open, tmp_path: Path) -> None:
    ledger = bound(tmp_path / "bus.db")
    ledger.run([partial(ledger.publish, [command("a")])])
    ledger.run([partial(ledger.forget, [1])])
    ledger.close()
    ledger = bound(tmp_path / "bus.db")
    ledger.run([partial(ledger.publish, [command("b")])])

    assert [row.id for row in ledger.fetch(ASKED.queue, (), after=0, at_most=8)] == [2]


def test_the_file_shrinks_slice_by_slice_when_its_rows_are_gone(bound: Open, tmp_path: Path) -> None:
    ledger = bound(tmp_path / "bus.db")
    messages = [command(f"{number}", body=bytes(100_000)) for number in range(60)]
    ledger.run([partial(ledger.publish, messages)])
    full_bytes = size_bytes(ledger)
    ledger.run([partial(ledger.forget, range(1, 61))])
    unused_pages = ledger.unused_pages
    ledger.shrink()

    assert ledger.unused_pages == unused_pages - SLICE_PAGES

    while ledger.unused_pages:
        ledger.shrink()

    assert full_bytes > 6_000_000
    assert size_bytes(ledger) < 100_000


def size_bytes(ledger: Ledger) -> int:
    return ledger._number("PRAGMA page_count") * 4096  # the file itself waits for a checkpoint


def test_every_commit_waits_for_the_disk(bound: Open, tmp_path: Path) -> None:
    ledger = bound(tmp_path / "bus.db")

    assert ledger._number("PRAGMA synchronous") == 2  # 2 is FULL; no test can cut the power
    assert (tmp_path / "bus.db-wal").exists()


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "bus.db").write_bytes(b"this is no database, and long enough to have a header" * 100)

    with pytest.raises(Corrupt, match=r"bus\.db"):
        Ledger(tmp_path / "bus.db")


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"bus\.db"):
        Ledger(tmp_path / "no such directory" / "bus.db")


def test_a_file_of_a_newer_spool_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bus.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()

    with pytest.raises(Conflict, match="99"):
        Ledger(tmp_path / "bus.db")
