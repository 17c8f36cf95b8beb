"""The contract of the bus: what every transport promises in `shared/bus/port.py`, held against each.

The local bus in memory forgets everything at close, so the promises about that are held against the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import cast

import pytest

from shared.bus.limits import MAX_BODY_BYTES, MAX_HEADER_NAME_BYTES, MAX_HEADERS_BYTES, MAX_NAME_BYTES
from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus, Inspectable, TooLarge, Unroutable
from shared.events.parsing import MAX_EVENT_BYTES
from shared.kernel.errors import Bug, Refused, Unavailable
from tests.contract.bus_brokers import (
    AwsBroker,
    Broker,
    LocalBroker,
    RabbitBroker,
    new_service,
    subscribe,
)
from tests.integration.tcp_proxy import TcpProxy, open_proxy

SOON_S = 20.0  # for what comes at once: only a transport that is broken needs all of it
NOTHING_S = 0.3  # how long to look for what must not come


@pytest.fixture
def service() -> str:
    return new_service()


@pytest.fixture(params=["local-file", "local-memory", "rabbitmq", "aws"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path, service: str) -> AsyncIterator[Broker]:
    broker = _broker(request, tmp_path)
    yield broker
    await broker.destroy({service})


@pytest.fixture(params=["local-file", "rabbitmq", "aws"])
async def durable(request: pytest.FixtureRequest, tmp_path: Path, service: str) -> AsyncIterator[Broker]:
    broker = _broker(request, tmp_path)
    yield broker
    await broker.destroy({service})


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.open()
    yield bus
    await bus.close()


@pytest.fixture
async def asked(bus: Bus, service: str) -> Subscription:
    """Return a subscription to `clip_requested` that is declared."""
    subscription = subscribe(service, "asked", "clip_requested")
    await bus.declare([subscription])
    return subscription


def _broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    match request.param:
        case "local-file":
            return LocalBroker(tmp_path / "bus.db")
        case "local-memory":
            return LocalBroker(None)
        case "aws":
            return AwsBroker(request.getfixturevalue("aws_url"))
        case _:
            return RabbitBroker(request.getfixturevalue("amqp_url"))


def arranged(broker: Broker, ids: Iterable[str | None]) -> list[str]:
    """Return ids as they came, sorted where the transport promises no order."""
    found = [str(each) for each in ids]
    return found if broker.keeps_order else sorted(found)


def ids_of(deliveries: Iterable[Delivery]) -> list[str | None]:
    return [delivery.message_id for delivery in deliveries]


def command(message_id: str = "1", body: bytes = b"{}", name: str = "clip_requested") -> Message:
    return Message(message_id, name, body, "application/cloudevents+json", mandatory=True)


def fact(message_id: str = "1", name: str = "clip_available") -> Message:
    return Message(message_id, name, b"{}", "application/cloudevents+json", mandatory=False)


def headed(headers: dict[str, str]) -> Message:
    return Message("1", "clip_requested", b"{}", "text/plain", mandatory=True, headers=headers)


async def receive(bus: Bus, subscription: Subscription, count: int) -> list[Delivery]:
    """Receive exactly `count` deliveries, in as many calls as it takes."""
    deliveries: list[Delivery] = []
    while len(deliveries) < count:
        found = await bus.receive(subscription, at_most=count - len(deliveries), wait_s=SOON_S)
        assert found, f"{len(deliveries)} of {count} came"
        deliveries += found
    return deliveries


async def receive_nothing(bus: Bus, subscription: Subscription) -> bool:
    return await bus.receive(subscription, at_most=8, wait_s=NOTHING_S) == []


async def test_a_message_reaches_the_queue_that_is_bound_to_its_type(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command("a", b'{"camera": 1}')])
    (delivery,) = await receive(bus, asked, 1)

    assert delivery.message_id == "a"
    assert delivery.queue == asked.queue
    assert delivery.body == b'{"camera": 1}'
    assert delivery.content_type == "application/cloudevents+json"
    assert not delivery.redelivered


async def test_what_is_published_before_anybody_receives_is_kept(
    bus: Bus, broker: Broker, asked: Subscription
) -> None:
    await bus.publish([command("a"), command("b")])

    assert arranged(broker, ids_of(await receive(bus, asked, 2))) == ["a", "b"]


async def test_every_subscription_to_a_type_gets_a_copy(bus: Bus, broker: Broker, service: str) -> None:
    first = subscribe(service, "asked", "clip_available", "clip_failed")
    second = subscribe(service, "told", "clip_available")
    await bus.declare([first, second])
    await bus.publish([fact("a"), fact("b", "clip_failed")])

    assert arranged(broker, ids_of(await receive(bus, first, 2))) == ["a", "b"]
    assert [delivery.message_id for delivery in await receive(bus, second, 1)] == ["a"]
    assert await receive_nothing(bus, second)


async def test_declaring_again_changes_nothing(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command("a")])
    await bus.declare([asked])
    await bus.declare([asked])

    assert [delivery.message_id for delivery in await receive(bus, asked, 1)] == ["a"]
    assert await receive_nothing(bus, asked)


async def test_a_command_that_nobody_receives_is_unroutable(bus: Bus, asked: Subscription) -> None:
    with pytest.raises(Unroutable, match="merge_requested"):
        await bus.publish([command(name="merge_requested")])


async def test_a_fact_that_nobody_receives_is_counted_and_fine(
    bus: Bus, broker: Broker, asked: Subscription
) -> None:
    await bus.publish([fact("a"), command("b"), fact("c", "clip_failed")])

    assert sorted(broker.unrouted) == ["clip_available", "clip_failed"]


async def test_messages_of_one_id_are_told_apart_in_one_batch(bus: Bus, asked: Subscription) -> None:
    with pytest.raises(Unroutable, match="merge_requested"):
        await bus.publish([command("same"), command("same", name="merge_requested"), command("same")])


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


async def test_no_more_than_asked_for_is_handed_over(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command(f"{number}") for number in range(6)])
    first = await bus.receive(asked, at_most=1, wait_s=SOON_S)
    second = await bus.receive(asked, at_most=2, wait_s=SOON_S)

    assert len(first) == 1
    assert 1 <= len(second) <= 2


async def test_no_more_than_there_are_hands_is_held_at_once(bus: Bus, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested", hands=2)
    await bus.declare([asked])
    await bus.publish([command(f"{number}") for number in range(4)])
    held = await receive(bus, asked, 2)

    assert await receive_nothing(bus, asked)
    assert bus.health().held == 2  # the others are left to whoever has hands to spare

    await bus.acknowledge(held[:1])
    (next_one,) = await bus.receive(asked, at_most=8, wait_s=SOON_S)

    assert next_one.message_id not in ids_of(held)


async def test_an_empty_queue_is_waited_for_as_long_as_asked(bus: Bus, asked: Subscription) -> None:
    assert await bus.receive(asked, at_most=1, wait_s=0) == []

    started = time.monotonic()

    assert await bus.receive(asked, at_most=1, wait_s=0.5) == []
    assert time.monotonic() - started >= 0.4


async def test_a_waiting_receiver_is_woken_by_what_comes(bus: Bus, asked: Subscription) -> None:
    waiting = asyncio.create_task(bus.receive(asked, at_most=4, wait_s=SOON_S))
    await bus.receive(asked, at_most=1, wait_s=0)
    await bus.publish([command("a")])

    assert [delivery.message_id for delivery in await waiting] == ["a"]


async def test_two_receivers_never_hold_the_same_message(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command(f"{number}") for number in range(40)])
    arrived: list[str | None] = []

    async def work() -> None:
        while deliveries := await bus.receive(asked, at_most=3, wait_s=NOTHING_S):
            arrived.extend(delivery.message_id for delivery in deliveries)
            await bus.acknowledge(deliveries)

    await asyncio.gather(work(), work())

    assert sorted(arrived, key=str) == sorted((f"{number}" for number in range(40)), key=str)


async def test_what_is_given_back_comes_again_at_once_and_says_so(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command("a"), command("b")])
    first = await receive(bus, asked, 1)
    await bus.give_back(first)
    again = {delivery.message_id: delivery.redelivered for delivery in await receive(bus, asked, 2)}

    assert again == {name: name == first[0].message_id for name in ("a", "b")}


async def test_what_is_acknowledged_is_forgotten(durable: Broker, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command(f"{number}") for number in range(5)])
    deliveries = await receive(bus, asked, 5)
    # Two in a row, one that stays, and one out of order.
    await bus.acknowledge([deliveries[4], deliveries[0], deliveries[1]])
    await bus.close()
    bus = await durable.open()
    await bus.declare([asked])
    left = await receive(bus, asked, 2)

    assert set(ids_of(left)) == set(ids_of(deliveries[2:4]))
    assert all(delivery.redelivered for delivery in left)
    assert await receive_nothing(bus, asked)

    await bus.close()


async def test_what_was_never_received_outlives_the_bus(durable: Broker, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command(f"{number}") for number in range(20)])
    await bus.close()
    bus = await durable.open()
    # The binding outlives it too: a publisher may be there before the service.
    await bus.publish([command("20")])
    await bus.declare([asked])
    arrived: list[str | None] = []
    while len(arrived) < 21:
        deliveries = await bus.receive(asked, at_most=8, wait_s=SOON_S)
        arrived += [delivery.message_id for delivery in deliveries]
        await bus.acknowledge(deliveries)
    await bus.close()

    assert arranged(durable, arrived) == arranged(durable, (f"{number}" for number in range(21)))


async def test_a_delivery_of_a_former_bus_is_skipped_and_comes_again(durable: Broker, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command("a")])
    lost = await receive(bus, asked, 1)
    await bus.close()
    bus = await durable.open()
    await bus.declare([asked])
    await bus.acknowledge(lost)
    await bus.give_back(lost)

    assert [delivery.message_id for delivery in await receive(bus, asked, 1)] == ["a"]

    await bus.close()


async def test_settling_twice_is_skipped(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command("a"), command("b")])
    deliveries = await receive(bus, asked, 2)
    await bus.acknowledge(deliveries[:1])
    await bus.acknowledge(deliveries[:1])
    await bus.give_back(deliveries[:1])
    await bus.acknowledge(deliveries)

    assert await receive_nothing(bus, asked)


async def test_a_cancelled_receive_loses_nothing(bus: Bus, broker: Broker, asked: Subscription) -> None:
    arrived: list[str | None] = []
    for number in range(30):
        waiting = asyncio.create_task(bus.receive(asked, at_most=1, wait_s=SOON_S))
        publishing = asyncio.create_task(bus.publish([command(f"{number}")]))
        # Each round cancels a little later: before, while and after the message arrives.
        for _ in range(number * 2):
            await asyncio.sleep(0)
        waiting.cancel()
        (taken, _) = await asyncio.gather(waiting, publishing, return_exceptions=True)
        if isinstance(taken, list):
            arrived += [delivery.message_id for delivery in taken]
            await bus.acknowledge(taken)
    while deliveries := await bus.receive(asked, at_most=8, wait_s=1.0):
        arrived += [delivery.message_id for delivery in deliveries]
        await bus.acknowledge(deliveries)

    assert arranged(broker, arrived) == arranged(broker, (f"{number}" for number in range(30)))


async def test_after_receiving_has_stopped_what_was_taken_can_be_settled(
    durable: Broker, service: str
) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command("1"), command("2"), command("3")])
    done, not_done = await receive(bus, asked, 2)
    waiting = asyncio.create_task(bus.receive(asked, at_most=0, wait_s=SOON_S))
    await bus.stop_receiving()

    assert await waiting == []
    assert await bus.receive(asked, at_most=8, wait_s=SOON_S) == []

    await bus.acknowledge([done])
    await bus.give_back([not_done])
    await bus.close()
    bus = await durable.open()
    await bus.declare([asked])

    assert {done.message_id, *ids_of(await receive(bus, asked, 2))} == {"1", "2", "3"}
    assert await receive_nothing(bus, asked)

    await bus.close()


async def test_health_says_what_is_so(bus: Bus, asked: Subscription) -> None:
    await bus.receive(asked, at_most=1, wait_s=0)

    assert (bus.health().connected, bus.health().consuming, bus.health().reason) == (True, True, "")

    await bus.stop_receiving()

    assert (bus.health().connected, bus.health().consuming) == (True, False)
    assert bus.health().reason

    await bus.close()

    assert not bus.health().connected
    assert bus.health().reason


async def test_what_was_taken_is_held_until_it_is_settled(bus: Bus, asked: Subscription) -> None:
    await bus.publish([command("a"), command("b")])
    first, second = await receive(bus, asked, 2)
    held = [bus.health().held]
    await bus.acknowledge([first])
    held.append(bus.health().held)
    await bus.stop_receiving()  # else it may be sent ahead again at once
    await bus.give_back([second])
    held.append(bus.health().held)

    assert held == [2, 1, 0]


async def test_a_closed_bus_says_so_and_may_be_closed_again(bus: Bus, asked: Subscription) -> None:
    await bus.close()
    await bus.close()

    with pytest.raises(Unavailable):
        await bus.publish([command()])


async def test_receiving_from_what_was_not_declared_is_a_bug(bus: Bus, service: str) -> None:
    with pytest.raises(Bug, match="not declared"):
        await bus.receive(subscribe(service, "told", "clip_failed"), at_most=1, wait_s=0)


async def test_people_can_look_into_it_without_changing_anything(bus: Bus, service: str) -> None:
    inspectable = cast("Inspectable", bus)
    asked = subscribe(service, "asked", "clip_requested")
    before = await inspectable.inspect(asked)
    again = await inspectable.inspect(asked)
    await bus.declare([asked])
    await bus.publish([command("a"), command("b")])
    after = await inspectable.inspect(asked)

    assert (before.exists, again.exists) == (False, False)
    assert (after.queue, after.exists, after.ready, after.unheard) == (asked.queue, True, 2, ())
    assert len(await receive(bus, asked, 2)) == 2


async def test_every_transport_carries_what_the_inbox_and_outbox_count_on(bus: Bus) -> None:
    assert bus.capabilities.max_body_bytes >= MAX_EVENT_BYTES - 4 * 1024
    assert bus.capabilities.max_batch >= 500


@pytest.fixture(params=["rabbitmq", "aws"])
async def remote(
    request: pytest.FixtureRequest, tmp_path: Path, service: str
) -> AsyncIterator[tuple[Bus, TcpProxy]]:
    """Return a bus on a broker elsewhere, and the way to it."""
    broker = _broker(request, tmp_path)
    assert isinstance(broker, RabbitBroker | AwsBroker)
    host, port = broker.server
    async with open_proxy(host, port) as proxy:
        broker.move(proxy.port)
        bus = await broker.open()
        yield bus, proxy
        await bus.close()
    broker.move(port)
    await broker.destroy({service})


async def test_while_the_broker_is_away_everybody_is_told_and_afterwards_it_goes_on(
    remote: tuple[Bus, TcpProxy], service: str
) -> None:
    bus, proxy = remote
    asked = subscribe(service, "asked", "clip_requested")
    await bus.declare([asked])
    await bus.publish([command("before")])
    await proxy.refuse()
    with pytest.raises(Unavailable):
        await bus.publish([command("lost")])

    await until(lambda: not bus.health().connected)
    assert bus.health().reason

    await proxy.accept()
    await until(lambda: bus.health().connected and bus.health().consuming)
    await bus.publish([command("after")])
    arrived = await receive(bus, asked, 2)
    await bus.acknowledge(arrived)

    assert set(ids_of(arrived)) == {"before", "after"}
    assert await receive_nothing(bus, asked)


async def test_a_bus_closes_in_time_while_the_broker_is_away(
    remote: tuple[Bus, TcpProxy], service: str
) -> None:
    bus, proxy = remote
    asked = subscribe(service, "asked", "clip_requested")
    await bus.declare([asked])
    await bus.publish([command("taken")])
    await receive(bus, asked, 1)
    await proxy.refuse()
    async with asyncio.timeout(SOON_S):
        await bus.close()

    assert not bus.health().connected
    await proxy.accept()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - health is a reading: no event tells that it has changed
            await asyncio.sleep(0.02)
