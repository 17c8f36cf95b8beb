"""What is written to RabbitMQ in one piece: no id twice, not too many messages, not too many bytes."""

from __future__ import annotations

import pytest

from shared.bus.message import Message
from shared.bus.rabbitmq_publisher import WINDOW, WINDOW_BYTES, _windows


def message(name: str, *, size_bytes: int = 2) -> Message:
    return Message(name, "clip_requested", b"." * size_bytes, "application/json", mandatory=True)


HALF = WINDOW_BYTES // 2


@pytest.mark.parametrize(
    ("messages", "lengths"),
    [
        pytest.param([], [], id="none"),
        pytest.param([message(str(n)) for n in range(WINDOW)], [WINDOW], id="full"),
        pytest.param([message(str(n)) for n in range(2 * WINDOW + 1)], [WINDOW, WINDOW, 1], id="more"),
        pytest.param([message("a"), message("b"), message("a"), message("b")], [2, 2], id="same ids"),
        pytest.param([message(n, size_bytes=HALF) for n in "abc"], [2, 1], id="large"),
        pytest.param(
            [message("a"), message("b", size_bytes=2 * WINDOW_BYTES), message("c")], [1, 1, 1], id="huge"
        ),
    ],
)
def test_messages_are_split_into_windows_in_their_order(messages: list[Message], lengths: list[int]) -> None:
    windows = list(_windows(messages))

    assert [len(window) for window in windows] == lengths
    assert [each for window in windows for each in window] == messages
