"""A claimed row, as it is read."""

from __future__ import annotations

from shared.inbox.row import CLAIMED_COLUMNS, ClaimedRow


def test_the_columns_are_read_in_the_order_of_the_fields() -> None:
    assert [column.name for column in CLAIMED_COLUMNS] == [*ClaimedRow._fields]
