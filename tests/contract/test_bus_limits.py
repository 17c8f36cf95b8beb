"""How much every transport carries: the contract of the bus, its sizes."""

from __future__ import annotations

import pytest

from shared.bus.limits import MAX_BODY_BYTES, MAX_HEADER_NAME_BYTES, MAX_HEADERS_BYTES, MAX_NAME_BYTES
from shared.bus.message import Message, Subscription
from shared.bus.port import Bus, TooLarge
from shared.events.parsing import MAX_EVENT_BYTES
from shared.kernel.errors import Refused
from tests.contract.bus_brokers import (
    Broker,
)
from tests.contract.bus_traffic import arranged, headed, receive_nothing
from tests.traffic import SOON_S, command, receive


@pytest.mark.parametrize(
    ("message", "error"),
    [
        pytest.param(command(body=bytes(MAX_BODY_BYTES + 1)), TooLarge, id="body"),
        pytest.param(command("é" * (MAX_NAME_BYTES // 2 + 1)), TooLarge, id="id"),
        pytest.param(command(name="t" * (MAX_NAME_BYTES + 1)), TooLarge, id="type"),
        pytest.param(headed({"h": "v" * MAX_HEADERS_BYTES}), TooLarge, id="headers"),
        pytest.param(headed({"h" * (MAX_HEADER_NAME_BYTES + 1): ""}), TooLarge, id="name-of-a-header"),
        pytest.param(headed({"h": "\udfff"}), Refused, id="header-that-is-not-unicode"),
        pytest.param(command("\ud800"), Refused, id="text-that-is-not-unicode"),
    ],
)
async def test_what_no_transport_can_carry_is_refused_and_the_bus_goes_on(
    bus: Bus, asked: Subscription, message: Message, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bus.publish([command("before"), message])
    await bus.publish([command("after")])

    assert [delivery.message_id for delivery in await receive(bus, asked, 1)] == ["after"]


async def test_a_batch_of_500_arrives_in_its_order_where_there_is_one(
    bus: Bus, broker: Broker, asked: Subscription
) -> None:
    await bus.publish([command(f"{number}") for number in range(500)])
    arrived: list[str | None] = []
    while len(arrived) < 500:
        deliveries = await bus.receive(asked, at_most=8, wait_s=SOON_S)
        arrived += [delivery.message_id for delivery in deliveries]
        await bus.acknowledge(deliveries)

    assert arranged(broker, arrived) == arranged(broker, (f"{number}" for number in range(500)))
    assert await receive_nothing(bus, asked)


async def test_an_empty_batch_is_published_at_once(bus: Bus) -> None:
    await bus.publish([])

    assert bus.health().connected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(range(256)), id="every-byte"),
        pytest.param("{'cameraId': 'été 🎥'}".encode(), id="single-quotes-and-unicode"),
    ],
)
async def test_a_body_arrives_byte_for_byte(bus: Bus, asked: Subscription, body: bytes) -> None:
    await bus.publish([command(body=body)])
    (delivery,) = await receive(bus, asked, 1)

    assert delivery.body == body


async def test_the_largest_body_arrives_whole(bus: Bus, asked: Subscription) -> None:
    text = b"x" * min(bus.capabilities.max_body_bytes, 1024 * 1024)
    no_text = bytes(range(256)) * (len(text) * 3 // 4 // 256)
    await bus.publish([command("text", text), command("no text", no_text)])
    arrived = {delivery.message_id: delivery.body for delivery in await receive(bus, asked, 2)}

    assert arrived == {"text": text, "no text": no_text}


async def test_a_body_beyond_what_the_transport_says_it_carries_is_refused(
    bus: Bus, asked: Subscription
) -> None:
    some_more = 4 * 1024  # a transport may say a little less than it carries
    with pytest.raises(TooLarge):
        await bus.publish([command(body=b"x" * (bus.capabilities.max_body_bytes + some_more + 1))])

    assert await receive_nothing(bus, asked)


async def test_headers_arrive_as_they_were(bus: Bus, asked: Subscription) -> None:
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "": "a name that is empty",
        "empty": "",
        "Name with spaces.and-dots": "été 🎥 \"quoted\" 'single' \n line \x00 zero",
        "number": "42",
        "n" * MAX_HEADER_NAME_BYTES: "v" * 40_000,
    }
    await bus.publish([headed(headers)])
    (delivery,) = await receive(bus, asked, 1)

    assert delivery.headers == headers


async def test_every_transport_carries_what_the_inbox_and_outbox_count_on(bus: Bus) -> None:
    assert bus.capabilities.max_body_bytes >= MAX_EVENT_BYTES - 4 * 1024
    assert bus.capabilities.max_batch >= 500
