"""What the relay need not read back: bounded, and never handed out in part."""

from __future__ import annotations

from shared.bus.message import Message, Numbered
from shared.outbox.unsent import MAX_BODY_BYTES, MAX_KEPT, Unsent


def numbered(subject: str, sequence: int, body: bytes = b"{}") -> Numbered:
    message = Message(f"{subject}-{sequence}", "clip.available", body, "application/json", mandatory=False)
    return Numbered(subject, sequence, message)


def test_what_is_taken_is_kept_no_longer() -> None:
    unsent = Unsent()
    unsent.keep([numbered("gate", 5), numbered("gate", 6), numbered("yard", 5)])

    assert unsent.take("gate", after=4, until=6) == [numbered("gate", 5), numbered("gate", 6)]
    assert unsent.take("gate", after=4, until=6) == []
    assert unsent.take("yard", after=4, until=5) == [numbered("yard", 5)]


def test_where_one_is_missing_none_is_handed_out() -> None:
    unsent = Unsent()
    unsent.keep([numbered("gate", 5), numbered("gate", 7)])

    assert unsent.take("gate", after=4, until=7) == []


def test_no_more_is_kept_than_a_burst_leaves() -> None:
    unsent = Unsent()
    unsent.keep([numbered("gate", number) for number in range(MAX_KEPT)])
    unsent.keep([numbered("yard", 1)])

    assert unsent.take("yard", after=0, until=1) == []
    unsent.keep([numbered("yard", 2)])
    assert unsent.take("yard", after=1, until=2) == [numbered("yard", 2)]


def test_a_large_body_stays_in_its_row() -> None:
    unsent = Unsent()
    unsent.keep([numbered("gate", 1, bytes(MAX_BODY_BYTES + 1)), numbered("yard", 1, bytes(MAX_BODY_BYTES))])

    assert unsent.take("gate", after=0, until=1) == []
    assert len(unsent.take("yard", after=0, until=1)) == 1
