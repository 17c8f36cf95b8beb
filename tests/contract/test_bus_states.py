"""The bus as a machine of states: whatever is done in whatever order, nothing is lost and nothing invented.

A model beside the bus knows which messages wait, which are held, and which are done. Every delivery has to
be one that waits; what is acknowledged never comes again, what is given back or was held by a bus that is
closed does; and at the end all that waits is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.bus.message import Delivery
from shared.bus.port import Bus
from tests.contract.bus_brokers import (
    Broker,
    new_service,
    subscribe,
)
from tests.contract.bus_traffic import broker_of
from tests.traffic import SOON_S, command

T = TypeVar("T")

HANDS = 6
# What is done may depend on chance only, never on what came: a broker has its own time, and the same
# run twice may bring other messages.
PICKS = st.lists(st.integers(0, 30), min_size=1, max_size=4)
SETTINGS = settings(
    stateful_step_count=25,
    deadline=None,  # how long a broker takes is not what is tested
    derandomize=True,  # the same run everywhere: what fails in CI fails here
    suppress_health_check=list(HealthCheck),
    # A failure of a broker is waited for, so making the example smaller would take many minutes.
    phases=(Phase.generate,),
)


class BusMachine(RuleBasedStateMachine):
    """One subscription, and everything that may be done with it."""

    def __init__(self, broker: Broker, *, durable: bool) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._broker = broker
        self._durable = durable
        self._subscription = subscribe(new_service(), "asked", "clip_requested", hands=HANDS)
        self._bus: Bus | None = None
        self._published = 0
        self.waiting: set[str] = set()
        self.again: set[str] = set()  # those that were held before, so that they come as redelivered
        self.held: dict[str, Delivery] = {}
        self.lost: list[Delivery] = []  # of buses that are closed, or settled before
        self.done: set[str] = set()

    @initialize()
    def open(self) -> None:
        self._run(self._open())

    @rule(count=st.integers(1, 12))
    def publish(self, count: int) -> None:
        names = [f"{self._published + number}" for number in range(count)]
        self._published += count
        self._run(self.bus.publish([command(name) for name in names]))
        self.waiting.update(names)

    @rule(at_most=st.integers(1, HANDS))
    def receive_what_is_there(self, at_most: int) -> None:
        if len(self.held) == HANDS or not self.waiting:
            return
        found = self._run(self.bus.receive(self._subscription, at_most=at_most, wait_s=SOON_S))

        assert found
        self._take(found, at_most)

    @rule(at_most=st.integers(1, HANDS))
    def receive_without_waiting(self, at_most: int) -> None:
        self._take(self._run(self.bus.receive(self._subscription, at_most=at_most, wait_s=0)), at_most)

    @rule(at_once=st.integers(0, 40))
    def begin_to_receive_and_think_better_of_it(self, at_once: int) -> None:
        found = self._run(self._cancelled_receive(at_once))
        self._take(found, HANDS)

    @rule(picks=PICKS)
    def acknowledge(self, picks: list[int]) -> None:
        deliveries = self._choose(picks)
        self._run(self.bus.acknowledge(deliveries))
        self.done.update(str(each.message_id) for each in deliveries)

    @rule(picks=PICKS)
    def give_back(self, picks: list[int]) -> None:
        deliveries = self._choose(picks)
        self._run(self.bus.give_back(deliveries))
        self._wait_again(deliveries)

    @rule(picks=PICKS, acknowledged=st.booleans())
    def settle_once_more(self, picks: list[int], acknowledged: bool) -> None:
        """Settle what this bus does not hold: it has to change nothing."""
        stale = [self.lost[pick % len(self.lost)] for pick in picks if self.lost]
        self._run(self.bus.acknowledge(stale) if acknowledged else self.bus.give_back(stale))

    @precondition(lambda self: self._durable)
    @rule()
    def reopen(self) -> None:
        self._run(self.bus.close())
        self.lost += self.held.values()
        self._wait_again(self.held.values())
        self.held.clear()
        self._run(self._open())

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        assert len(self.waiting) + len(self.held) + len(self.done) == self._published

    def teardown(self) -> None:
        """Receive all that is left: exactly what the model says, and nothing after it."""
        try:
            if self._bus is not None:
                self._run(self.bus.give_back(list(self.held.values())))
                self._wait_again(self.held.values())
                self.held.clear()
                while self.waiting:
                    self.receive_what_is_there(HANDS)
                    self._run(self.bus.acknowledge(list(self.held.values())))
                    self.held.clear()
                assert self._run(self.bus.receive(self._subscription, at_most=1, wait_s=0)) == []
                self._run(self.bus.close())
        finally:
            self._run(self._broker.destroy({self._subscription.service}))
            self._runner.close()

    @property
    def bus(self) -> Bus:
        assert self._bus is not None
        return self._bus

    async def _open(self) -> None:
        self._bus = await self._broker.open()
        await self._bus.declare([self._subscription])

    async def _cancelled_receive(self, at_once: int) -> list[Delivery]:
        receiving = asyncio.create_task(self.bus.receive(self._subscription, at_most=HANDS, wait_s=SOON_S))
        for _ in range(at_once):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        return [] if receiving.cancelled() else receiving.result()

    def _take(self, found: list[Delivery], at_most: int) -> None:
        assert len(found) <= at_most
        assert len(self.held) + len(found) <= HANDS
        for delivery in found:
            name = str(delivery.message_id)
            assert name in self.waiting, f"{name} came, and is {self._whereabouts(name)}"
            assert delivery.redelivered or name not in self.again
            self.waiting.remove(name)
            self.held[name] = delivery

    def _choose(self, picks: list[int]) -> list[Delivery]:
        held = sorted(self.held)
        names = sorted({held[pick % len(held)] for pick in picks if held})
        deliveries = [self.held.pop(name) for name in names]
        self.lost += deliveries
        return deliveries

    def _wait_again(self, deliveries: Any) -> None:
        names = {str(each.message_id) for each in deliveries}
        self.waiting |= names
        self.again |= names

    def _whereabouts(self, name: str) -> str:
        return "done" if name in self.done else "held" if name in self.held else "nobody's"

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)


@pytest.mark.parametrize(
    ("transport", "examples"), [("local-file", 20), ("local-memory", 20), ("rabbitmq", 8), ("aws", 3)]
)
@pytest.mark.limit(120)  # runs of 25 steps each, some of which open a bus anew
def test_nothing_is_lost_and_nothing_invented(
    transport: str, examples: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    class Machine(BusMachine):
        def __init__(self) -> None:
            super().__init__(broker_of(transport, request, tmp_path), durable=transport != "local-memory")

    run_state_machine_as_test(Machine, settings=settings(SETTINGS, max_examples=examples))
