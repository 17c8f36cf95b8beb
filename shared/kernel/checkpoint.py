"""The seam through which tests watch, and kill, a process at each step of the road of one event."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """What has just happened to a delivery, to work, or to an event to tell. In the order of the road."""

    RECEIVED = "received"
    PARSED = "parsed"
    ACCEPTED = "accepted"  # its row is committed
    ACKNOWLEDGED = "acknowledged"
    CLAIMED = "claimed"  # from the table, when it was not claimed as it came
    HANDLED = "handled"  # the handler returned; nothing of it is committed
    COMMITTED = "committed"
    PUBLISHED = "published"  # confirmed by the transport
    MARKED = "marked"  # as sent


Checkpoint = Callable[[Step], None]


def pass_by(_step: Step) -> None:
    """Do nothing: what every checkpoint is outside of tests."""
