"""Lists fit a terminal of 80 columns, and what is copied out of them is in one piece."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from spool.cli import dead_letters, work
from spool.cli.tables import Column, table_of

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LONG = "the store answers InvalidAccessKeyId for cameras/front-door/2026-11-22T11-00-00Z.mp4 " * 3
ROW = {
    "type": "clip_requested",
    "subject": "01a2057b-13a8-7e49-8d9c-d7cdaf8f697e",
    "attempt": 10,
    "state": "ready",
    "failingSince": "2026-11-22T11:00:00Z",
    "nextAt": "2026-11-22T12:05:00Z",
    "deadSince": "2026-11-21T01:00:00Z",
    "reason": LONG,
}


@pytest.mark.parametrize(
    ("columns", "whole", "row_id"),
    [
        pytest.param(work.columns_at(NOW), work.WHOLE, "1234567", id="work"),
        pytest.param(dead_letters.columns_at(NOW), dead_letters.WHOLE, "outbox-1234567", id="dead-letters"),
    ],
)
def test_a_list_fits_a_terminal_and_breaks_no_id(
    columns: Mapping[str, Column], whole: Collection[str], row_id: str
) -> None:
    row: dict[str, Any] = ROW | {"id": row_id}
    paper = io.StringIO()
    Console(file=paper, width=80).print(table_of([row, row], columns, whole=whole))
    lines = paper.getvalue().splitlines()

    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines].count([row_id, "clip_requested"]) == 2
    # Folded, never cut: every letter of the subject stands somewhere in its column.
    start = lines[1].index("subject")
    column = "".join(line[start:].split(" ")[0] for line in lines[3:] if len(line) > start)
    assert column.count(str(ROW["subject"])) == 2
