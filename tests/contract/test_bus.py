"""The contract of the bus: what every transport promises in `shared/bus/port.py`, held against each.

The local bus in memory forgets everything at close, so the promises about that are held against the others.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from shared.bus.message import Subscription
from shared.bus.port import Bus, Inspectable, Unroutable
from shared.kernel.errors import Bug
from tests.contract.bus_brokers import (
    Broker,
    subscribe,
)
from tests.contract.bus_traffic import arranged, fact, ids_of, receive_nothing
from tests.traffic import NOTHING_S, SOON_S, command, receive


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
