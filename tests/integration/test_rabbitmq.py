"""What RabbitMQ alone can do to a bus: lose connections, delete queues, bring messages of strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import pytest
import stamina
from aio_pika.abc import AbstractChannel, AbstractQueue
from pamqp.common import FieldTable
from structlog.testing import capture_logs

from shared.bus.message import Delivery, Subscription
from shared.bus.port import Bus, Unroutable
from shared.bus.rabbitmq import RabbitBus
from shared.bus.rabbitmq_topology import DELIVERY_LIMIT
from shared.kernel.errors import Conflict, Refused, Unavailable
from tests.integration.tcp_proxy import TcpProxy, open_proxy
from tests.traffic import LOOK_AGAIN_S, SOON_S, command, until


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    """Return a stranger's channel, by which tests look and interfere from outside."""
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel()


@pytest.fixture
async def asked(channel: AbstractChannel) -> AsyncIterator[Subscription]:
    """Return a subscription of a service that no other test uses."""
    subscription = Subscription(f"test-{uuid4().hex}", "asked", ("clip_requested",), hands=4)
    yield subscription
    await channel.queue_delete(subscription.queue)
    await channel.queue_delete(f"{subscription.service}.dead")
    await channel.exchange_delete(subscription.service)
    await channel.exchange_delete(f"{subscription.service}.dead")


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[TcpProxy]:
    address = urlsplit(amqp_url)
    async with open_proxy(address.hostname or "", address.port or 5672) as proxy:
        yield proxy


@pytest.fixture
async def bus(amqp_url: str, proxy: TcpProxy, asked: Subscription) -> AsyncIterator[RabbitBus]:
    """Return a bus behind the proxy, with the subscription declared."""
    async with opened(behind(proxy, amqp_url), asked) as bus:
        yield bus


@asynccontextmanager
async def opened(
    url: str, asked: Subscription, *, unrouted: Callable[[str], None] | None = None
) -> AsyncIterator[RabbitBus]:
    """Open a bus with the subscription declared.

    It is closed also when the test fails: a connection that is left to reconnect swallows its
    cancellation, and the event loop of the test would wait for it for ever.
    """
    bus = await RabbitBus.open(url, exchange=asked.service, unrouted=unrouted)
    try:
        await bus.declare([asked])
        yield bus
    finally:
        await bus.close()


@pytest.fixture
async def full_queue(
    bus: RabbitBus, channel: AbstractChannel, asked: Subscription
) -> AsyncIterator[AbstractQueue]:
    """Return a queue that wants the same messages, and has no room for another one."""
    arguments: FieldTable = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await channel.declare_queue(f"{asked.service}.full", durable=True, arguments=arguments)
    await queue.bind(asked.service, "clip_requested")
    await bus.publish([command("first")])
    await bus.acknowledge([await receive_one(bus, asked)])
    yield queue
    await channel.queue_delete(queue.name)


def behind(proxy: TcpProxy, url: str) -> str:
    address = urlsplit(url)
    credentials = address.netloc.rpartition("@")[0]
    return address._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}").geturl()


async def receive_one(bus: Bus, subscription: Subscription) -> Delivery:
    (delivery,) = await bus.receive(subscription, at_most=1, wait_s=SOON_S)
    return delivery


async def reconnected(bus: Bus) -> None:
    await until(lambda: bus.health().connected and bus.health().consuming)


async def disconnected(bus: Bus) -> None:
    await until(lambda: not bus.health().connected)


async def test_a_queue_keeps_its_dead_letters_until_they_have_arrived(
    bus: RabbitBus, asked: Subscription, channel: AbstractChannel
) -> None:
    arguments: FieldTable = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": f"{asked.service}.dead",
        "x-dead-letter-routing-key": f"{asked.service}.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # without it the broker falls back to at most once
    }

    # A broker refuses to declare a queue that is there with other arguments.
    await channel.declare_queue(asked.queue, durable=True, arguments=arguments)


async def test_after_a_cut_the_bus_reconnects_and_what_was_taken_comes_again(
    bus: RabbitBus, proxy: TcpProxy, asked: Subscription
) -> None:
    await bus.publish([command("taken"), command("waiting")])
    lost = await receive_one(bus, asked)
    proxy.cut()
    await disconnected(bus)
    await bus.acknowledge([lost])
    await reconnected(bus)
    await bus.acknowledge([lost])  # its number may mean another message on the new channel
    await bus.publish([command("published after")])
    arrived: list[tuple[str | None, bool]] = []
    while len(arrived) < 3:
        delivery = await receive_one(bus, asked)
        arrived.append((delivery.message_id, delivery.redelivered))
        await bus.acknowledge([delivery])

    assert lost.message_id == "taken"
    assert ("taken", True) in arrived
    assert {message_id for message_id, _ in arrived} == {"taken", "waiting", "published after"}


async def test_a_bus_that_calls_itself_connected_again_can_publish_at_once(
    bus: RabbitBus, proxy: TcpProxy, asked: Subscription
) -> None:
    proxy.latency_s = 0.1  # between the connection, which comes first, and the channel
    proxy.cut()
    await disconnected(bus)
    await until(lambda: bus.health().connected)
    await bus.publish([command("a")])

    assert (await receive_one(bus, asked)).message_id == "a"


async def test_a_receiver_that_waits_through_a_cut_gets_what_comes_after_it(
    bus: RabbitBus, proxy: TcpProxy, asked: Subscription
) -> None:
    await bus.receive(asked, at_most=1, wait_s=0)
    waiting = asyncio.create_task(receive_one(bus, asked))
    proxy.cut()
    await disconnected(bus)
    await reconnected(bus)
    await bus.publish([command("a")])

    assert (await waiting).message_id == "a"


async def test_while_the_broker_is_away_the_bus_says_so_and_publishing_fails_at_once(
    bus: RabbitBus, proxy: TcpProxy, asked: Subscription
) -> None:
    await proxy.refuse()
    await disconnected(bus)

    assert "no connection to RabbitMQ" in bus.health().reason
    with pytest.raises(Unavailable):
        await bus.publish([command("a")])

    await proxy.accept()
    await reconnected(bus)
    await bus.publish([command("b")])

    assert (await receive_one(bus, asked)).message_id == "b"


async def test_a_confirm_that_never_comes_is_unavailable_and_no_cancellation(
    bus: RabbitBus, proxy: TcpProxy
) -> None:
    proxy.hold()
    publishing = asyncio.create_task(bus.publish([command(f"{number}") for number in range(3)]))
    await asyncio.sleep(LOOK_AGAIN_S)
    proxy.cut()

    with pytest.raises(Unavailable):
        await publishing


async def test_a_message_that_is_refused_for_now_is_published_again(
    bus: RabbitBus, full_queue: AbstractQueue, asked: Subscription
) -> None:
    publishing = asyncio.create_task(bus.publish([command("second")]))
    await receive_one(bus, asked)  # the other queue has kept it, so this one has refused it
    await full_queue.purge()
    await publishing
    message = await full_queue.get()

    assert message.message_id == "second"


async def test_a_message_that_is_refused_for_long_is_unavailable(
    bus: RabbitBus, full_queue: AbstractQueue
) -> None:
    with pytest.raises(Unavailable, match="confirm"):
        await bus.publish([command("second")])


@pytest.mark.parametrize("together", [pytest.param(True, id="one batch"), pytest.param(False, id="two")])
async def test_of_two_messages_with_one_id_each_has_its_own_answer(
    amqp_url: str, asked: Subscription, *, together: bool
) -> None:
    unrouted: list[str] = []
    wanted = command("twin")
    unwanted = replace(wanted, type="clip_failed", mandatory=False)
    batches = [[unwanted, wanted, wanted]] if together else [[unwanted], [wanted], [wanted]]
    async with opened(amqp_url, asked, unrouted=unrouted.append) as bus:
        await asyncio.gather(*map(bus.publish, batches))
        arrived = [await receive_one(bus, asked) for _ in range(2)]
        await bus.acknowledge(arrived)

    assert unrouted == ["clip_failed"]
    assert [delivery.message_id for delivery in arrived] == ["twin", "twin"]


async def test_a_message_larger_than_a_frame_arrives_whole_among_others(
    bus: RabbitBus, asked: Subscription
) -> None:
    bodies = [b"small", bytes(range(256)) * 1024, b"", b"{}"]
    await bus.publish(
        [replace(command(str(number)), body=body) for number, body in enumerate(bodies)],
    )
    arrived = [await receive_one(bus, asked) for _ in bodies]

    assert [delivery.body for delivery in arrived] == bodies


async def test_a_bus_is_closed_in_time_while_the_broker_is_away(bus: RabbitBus, proxy: TcpProxy) -> None:
    await proxy.refuse()
    await disconnected(bus)
    async with asyncio.timeout(SOON_S):
        await bus.close()

    assert not bus.health().connected


async def test_a_connection_that_is_lost_and_found_is_told_of_once_each(
    bus: RabbitBus, proxy: TcpProxy
) -> None:
    with capture_logs() as lines:
        await proxy.refuse()
        await disconnected(bus)
        await proxy.accept()
        await until(lambda: len(lines) == 4)
        await bus.close()

    told = [(line["connection"], line["event"], line["log_level"]) for line in lines]
    assert sorted(told) == [
        ("spool publishes", "bus.connection_found", "info"),
        ("spool publishes", "bus.connection_lost", "warning"),
        ("spool receives", "bus.connection_found", "info"),
        ("spool receives", "bus.connection_lost", "warning"),
    ]


async def test_a_bus_that_knows_several_nodes_goes_to_the_next_one(
    amqp_url: str, proxy: TcpProxy, asked: Subscription
) -> None:
    broker = urlsplit(amqp_url)
    async with open_proxy(broker.hostname or "", broker.port or 5672) as other:
        nodes = f"127.0.0.1:1,127.0.0.1:{proxy.port},127.0.0.1:{other.port}"
        credentials = broker.netloc.rpartition("@")[0]
        url = broker._replace(netloc=f"{credentials}@{nodes}").geturl()
        async with opened(url, asked) as bus:
            await proxy.refuse()
            await disconnected(bus)
            await reconnected(bus)
            await bus.publish([command("by the third")])
            by_the_third = await receive_one(bus, asked)
            await bus.acknowledge([by_the_third])
            await until(lambda: bus.health().held == 0)  # an acknowledgement is written a moment later
            await proxy.accept()
            await other.refuse()
            await disconnected(bus)
            await reconnected(bus)
            await bus.publish([command("by the second")])
            # RabbitMQ confirms no acknowledgement: the first one may have been lost with its connection.
            while (by_the_second := await receive_one(bus, asked)).message_id == by_the_third.message_id:
                await bus.acknowledge([by_the_second])

    assert by_the_third.message_id == "by the third"
    assert by_the_second.message_id == "by the second"


async def test_a_strangers_bare_message_arrives(
    bus: RabbitBus, channel: AbstractChannel, asked: Subscription
) -> None:
    headers: FieldTable = {
        "number": 7,
        "bytes": bytearray(b"\xff!"),
        "table": {"deep": [1, "two"]},
        "nothing": None,
        "text": "é",
    }
    await channel.default_exchange.publish(aio_pika.Message(b"{'cameraId': 1}", headers=headers), asked.queue)
    delivery = await receive_one(bus, asked)

    assert delivery.body == b"{'cameraId': 1}"
    assert delivery.headers["number"] == "7"
    assert delivery.headers["table"] == '{"deep": [1, "two"]}'
    assert delivery.headers["bytes"] == "\N{REPLACEMENT CHARACTER}!"
    assert delivery.headers["text"] == "é"
    assert all(isinstance(value, str) for value in delivery.headers.values())


async def test_a_queue_deleted_under_its_receiver_is_made_again(
    bus: RabbitBus, channel: AbstractChannel, asked: Subscription
) -> None:
    waiting = asyncio.create_task(bus.receive(asked, at_most=1, wait_s=SOON_S))
    await bus.receive(asked, at_most=1, wait_s=0)
    with capture_logs() as lines:
        await channel.queue_delete(asked.queue)
        async for attempt in stamina.retry_context(
            on=Unroutable, attempts=None, timeout=SOON_S, wait_max=0.1
        ):
            with attempt:
                await bus.publish([command("a")])

        assert [delivery.message_id for delivery in await waiting] == ["a"]
    told = [line["queue"] for line in lines if line["event"] == "bus.consumer_cancelled"]
    assert told == [asked.queue]


async def test_what_the_broker_gives_up_is_received_from_the_dead_letters(
    bus: RabbitBus, asked: Subscription
) -> None:
    dead = Subscription(asked.service, "dead", (), hands=1)
    await bus.declare([dead])
    await bus.publish([command("poison")])
    for _ in range(DELIVERY_LIMIT + 1):
        await bus.give_back([await receive_one(bus, asked)])
    delivery = await receive_one(bus, dead)

    assert DELIVERY_LIMIT >= 100  # an outage of the database makes no innocents into dead letters
    assert (delivery.message_id, delivery.queue) == ("poison", dead.queue)
    assert asked.queue in delivery.headers["x-death"]


async def test_nothing_waits_unacknowledged_where_all_hands_are_full(
    bus: RabbitBus, amqp_url: str, asked: Subscription
) -> None:
    await bus.publish([command("first"), command("second")])
    first = await receive_one(bus, asked)
    await bus.acknowledge([first])
    async with opened(amqp_url, asked) as other:
        second = await receive_one(other, asked)

    assert (second.message_id, second.redelivered) == ("second", False)


async def test_the_broker_sends_no_more_than_the_hands_that_became_free(
    bus: RabbitBus, amqp_url: str, asked: Subscription
) -> None:
    await bus.publish([command(str(number)) for number in range(asked.hands + 2)])
    await bus.acknowledge(await bus.receive(asked, at_most=asked.hands, wait_s=SOON_S))
    fifth = await receive_one(bus, asked)
    async with opened(amqp_url, asked) as other:
        sixth = await receive_one(other, asked)

    assert (fifth.message_id, fifth.redelivered) == ("4", False)
    assert (sixth.message_id, sixth.redelivered) == ("5", False)


async def test_what_was_acknowledged_is_soon_held_no_more_although_no_other_message_comes(
    bus: RabbitBus, asked: Subscription
) -> None:
    await bus.publish([command("a"), command("b")])
    await bus.acknowledge(await bus.receive(asked, at_most=2, wait_s=SOON_S))
    async with asyncio.TaskGroup() as group:
        receiving = group.create_task(bus.receive(asked, at_most=1, wait_s=SOON_S))
        await until(lambda: bus.health().held == 0)
        receiving.cancel()

    assert receiving.cancelled()


async def test_what_was_prefetched_goes_to_others_when_nobody_asks_for_it(
    bus: RabbitBus, amqp_url: str, asked: Subscription
) -> None:
    await bus.receive(asked, at_most=4, wait_s=0)
    await bus.publish([command("a")])
    async with opened(amqp_url, asked) as other:
        delivery = await receive_one(other, asked)

    assert delivery.message_id == "a"
    assert bus.health().consuming


async def test_a_queue_with_other_properties_is_a_conflict_and_the_bus_goes_on(
    bus: RabbitBus, channel: AbstractChannel, asked: Subscription
) -> None:
    told = Subscription(asked.service, "told", ("clip_failed",))
    await channel.declare_queue(told.queue, durable=True)
    with pytest.raises(Conflict, match=told.queue):
        await bus.declare([told])
    await channel.queue_delete(told.queue)
    await bus.declare([told])
    await channel.queue_delete(told.queue)

    assert bus.health().connected


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("amqp://spool:hush-hush@127.0.0.1:1/", Unavailable, id="nobody-listens"),
        pytest.param("amqp://spool:hush-hush@127.0.0.1:port/", Refused, id="no-url"),
    ],
)
async def test_a_bus_that_cannot_be_reached_says_so_without_the_password(
    url: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        await RabbitBus.open(url)

    assert "Error" not in str(caught.value)
    assert "hush-hush" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


async def test_a_virtual_host_that_is_not_there_is_named(amqp_url: str) -> None:
    with pytest.raises(Unavailable, match=r"virtual host 'no such'") as caught:
        await RabbitBus.open(urlsplit(amqp_url)._replace(path="/no%20such").geturl())

    assert "rabbitmqctl list_vhosts" in (caught.value.hint or "")


async def test_a_wrong_password_is_refused_in_time_and_not_repeated(amqp_url: str) -> None:
    address = urlsplit(amqp_url)
    wrong = address._replace(netloc=f"spool:hush-hush@{address.hostname}:{address.port}").geturl()
    with pytest.raises(Unavailable, match="the user or the password") as caught:
        await RabbitBus.open(wrong)

    assert "hush-hush" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
