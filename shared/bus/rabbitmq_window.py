"""A window of messages in one write, and the broker's answer to each.

aiormq writes one message, waits until the socket has taken it, and only then looks at the next: a system
call and several turns of the event loop each. Here is done what its `basic_publish` does, for all of a window
at once, on the same channel and in the channel's own books: a quarter of the processor time (bench/bus.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import aiormq
from aio_pika.abc import AbstractRobustChannel
from aio_pika.exceptions import ChannelInvalidStateError
from aiormq.abc import ChannelFrame, ConfirmationFrameType, DeliveredMessage
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.bus.message import Message

PERSISTENT = 2  # AMQP's delivery mode

# A confirm, or the message itself when no queue wants it; DeliveryError when the broker could not keep it.
Answer = asyncio.Future[ConfirmationFrameType | DeliveredMessage]


async def send(
    channel: AbstractRobustChannel, exchange: str, messages: Sequence[Message]
) -> Sequence[Answer]:
    """Publish all messages, mandatory to the broker; return when each has its answer, well or bad.

    No two of them have one id: by the id aiormq tells which of them came back.
    Raises ChannelInvalidStateError when there is no connection; an answer may hold an AMQPError as well.
    """
    if channel.is_closed:
        raise ChannelInvalidStateError(f"{channel!r} is closed")
    line = await channel.get_underlay_channel()
    assert isinstance(line, aiormq.Channel)
    async with line.lock:
        written = ChannelFrame(b"".join(_frames(line, exchange, messages)), should_close=False)
        await line.write_queue.put(written)
        # Nothing is awaited from here on: so the answers cannot come before they are expected.
        answers = {message.id: _expected(line, message) for message in messages}
    try:
        await asyncio.wait(answers.values())
    finally:
        for message_id, answer in answers.items():
            line.message_id_delivery_tag.pop(message_id, None)
            answer.cancel()  # of a caller that waits no longer; those that came stay
    return list(answers.values())


def _expected(line: aiormq.Channel, message: Message) -> Answer:
    line.delivery_tag += 1
    answer: Answer = line.create_future()
    line.confirmations[line.delivery_tag] = answer
    line.message_id_delivery_tag[message.id] = line.delivery_tag
    return answer


def _frames(line: aiormq.Channel, exchange: str, messages: Sequence[Message]) -> Iterator[bytes]:
    publishing = {
        name: frame.marshal(Basic.Publish(exchange=exchange, routing_key=name, mandatory=True), line.number)
        for name in {message.type for message in messages}
    }
    for message in messages:
        yield publishing[message.type]
        properties = Basic.Properties(
            content_type=message.content_type,
            headers=dict(message.headers),
            delivery_mode=PERSISTENT,
            message_id=message.id,
            message_type=message.type,
        )
        yield frame.marshal(ContentHeader(body_size=len(message.body), properties=properties), line.number)
        for start in range(0, len(message.body), line.max_content_size):
            part = message.body[start : start + line.max_content_size]
            yield frame.marshal(ContentBody(part), line.number)
