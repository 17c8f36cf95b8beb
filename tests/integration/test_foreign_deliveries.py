"""What others send, from the bus into the inbox: one delivery may be several pieces of work, or none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import REGISTRY

from shared.bus.message import Message
from shared.database.engine import Database
from shared.database.tables import State
from shared.events.binary_mode import headers_of
from shared.events.call import CallEnded
from shared.events.clip import ClipRequested
from shared.events.envelope import wrap
from shared.events.source import SourceAvailable
from shared.inbox.dead_letters import replay, show_dead
from shared.inbox.outcome import Done, Work
from shared.inbox.router import Route
from tests.integration.workshop import (
    CLOCK,
    Observer,
    all_work,
    asked,
    eventually,
    open_bus,
    raw,
    router_of,
    working,
)


@dataclass
class Listener:
    """A handler that remembers what it was given."""

    heard: list[Any] = field(default_factory=list)

    async def __call__(self, data: Any, *, work: Work) -> Done:
        self.heard.append(data)
        return Done()

    async def has_heard(self, number: int) -> bool:
        return len(self.heard) >= number


def s3_record(camera_id: str, *, key: str | None = None) -> dict[str, Any]:
    name = key or f"{camera_id}.stream.20261122T175000000.mp4"
    obj = {"key": name, "size": 7, "sequencer": f"of {camera_id}"}
    return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "recordings"}, "object": obj}}


def plain(body: object, event_type: str, *, message_id: str) -> Message:
    """Return a message as a publisher sends it who knows nothing of CloudEvents."""
    message = raw(json.dumps(body).encode(), event_type, message_id=message_id)
    return replace(message, content_type="application/json")


async def test_one_notification_of_three_objects_is_three_pieces_of_work(database: Database) -> None:
    listener = Listener()
    records = [s3_record("north"), s3_record("", key="holiday.mp4"), s3_record("south")]
    router = router_of(Route(SourceAvailable, listener))
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([plain({"Records": records}, "source_available", message_id="m-1")])
        await eventually(lambda: listener.has_heard(2))

    work = await all_work(database)
    assert sorted(data.camera_id for data in listener.heard) == ["north", "south"]
    assert sorted(row.state for row in work) == [State.DONE, State.DONE, State.DEAD]
    (dead,) = (row for row in work if row.state is State.DEAD)
    async with database.read() as connection:
        _, body, _ = await show_dead(connection, dead.id)
    assert json.loads(body) == {"Records": [records[1]]}


async def test_a_notification_that_comes_twice_is_done_once(database: Database) -> None:
    listener = Listener()
    router = router_of(Route(SourceAvailable, listener))
    both = {"Records": [s3_record("north"), s3_record("south")]}
    async with open_bus(router) as bus, working(router, database, bus):
        # In another message each, as S3 does it: only the sequencer tells that it is the same.
        for name in ("m-1", "m-2"):
            await bus.publish([plain(both, "source_available", message_id=name)])
        await bus.publish([plain({"Records": [s3_record("last")]}, "source_available", message_id="m-3")])
        await eventually(lambda: listener.has_heard(3))

    assert sorted(data.camera_id for data in listener.heard) == ["last", "north", "south"]


async def test_what_is_of_no_interest_is_acknowledged_and_leaves_no_row(database: Database) -> None:
    listener, observer = Listener(), Observer()
    router = router_of(Route(SourceAvailable, listener))
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "recordings"}
    labels = {"broker": "local", "subscription": "clipper.source_available", "result": "ignored"}
    before = REGISTRY.get_sample_value("spool_received_messages_total", labels) or 0
    async with open_bus(router) as bus:
        async with working(router, database, bus, observer=observer):
            await bus.publish([plain(test, "source_available", message_id="m-1")])
            await bus.publish([plain({"Records": [s3_record("n")]}, "source_available", message_id="m-2")])
            await eventually(lambda: listener.has_heard(1))
        left = await bus.receive(router.subscriptions[0], at_most=5, wait_s=0)

    assert [row.state for row in await all_work(database)] == [State.DONE]
    assert left == []
    assert REGISTRY.get_sample_value("spool_received_messages_total", labels) == before + 1


async def test_a_mended_event_is_no_duplicate_of_the_unreadable_one(database: Database) -> None:
    listener = Listener()
    router = router_of(Route(ClipRequested, listener))
    event = json.loads(wrap(asked("clip-1"), id="event-1", source="/test", time_ms=CLOCK.now_ms()).to_bytes())
    broken = event | {"data": event["data"] | {"startTimestampInMs": "soon"}}
    async with open_bus(router) as bus, working(router, database, bus):
        for body in (broken, event):
            await bus.publish([raw(json.dumps(body).encode(), message_id="event-1")])
        await eventually(lambda: listener.has_heard(1))

    work = await all_work(database)
    assert {(row.source, row.event_id, row.state) for row in work} == {
        ("transport", "event-1", State.DEAD),
        ("/test", "event-1", State.DONE),
    }


async def test_an_event_is_the_same_in_binary_mode_and_in_structured_mode(database: Database) -> None:
    listener = Listener()
    router = router_of(Route(ClipRequested, listener))
    event = wrap(asked("clip-1"), id="event-1", source="/test", time_ms=CLOCK.now_ms())
    structured = raw(event.to_bytes(), message_id="event-1")
    binary = replace(plain(event.data, "clip_requested", message_id="another"), headers=headers_of(event, {}))
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([structured])
        await bus.publish([binary])
        await bus.publish(
            [raw(json.dumps(asked("clip-2").model_dump(by_alias=True)).encode(), message_id="2")]
        )
        await eventually(lambda: listener.has_heard(2))

    assert [data.clip_id for data in listener.heard] == ["clip-1", "clip-2"]
    assert len(await all_work(database)) == 2


async def test_what_came_in_binary_mode_can_be_read_again_from_its_row(database: Database) -> None:
    listener = Listener()
    router = router_of(Route(ClipRequested, listener, ordered=True))  # such rows are read again to be worked
    event = wrap(asked("clip-1"), id="event-1", source="/test", time_ms=CLOCK.now_ms())
    binary = replace(plain(event.data, "clip_requested", message_id="m"), headers=headers_of(event, {}))
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([binary])
        await eventually(lambda: listener.has_heard(1))

    (row,) = await all_work(database)
    assert (listener.heard, row.source, row.event_id) == ([asked("clip-1")], "/test", "event-1")


async def test_the_end_of_a_call_comes_without_an_envelope(database: Database) -> None:
    listener = Listener()
    router = router_of(Route(CallEnded, listener))
    body = {"recordingID": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "callEndingTimestamp": "00:00:14"}
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([plain(body | {"callEndingTimestamp": "soon"}, "call_ended", message_id="m-1")])
        await bus.publish([plain(body, "call_ended", message_id="m-2")])
        await eventually(lambda: listener.has_heard(1))

    dead, done = sorted(await all_work(database), key=lambda row: row.state, reverse=True)
    assert listener.heard == [CallEnded.model_validate(body)]
    assert (dead.source, dead.event_id) == ("transport", "m-1")
    assert "data.callEndingTimestamp" in (dead.reason or "")
    assert done.subject == body["recordingID"]


async def test_a_record_that_was_dead_is_replayed_alone(database: Database) -> None:
    listener = Listener()
    records = [s3_record("north"), s3_record("", key="holiday.mp4"), s3_record("south")]
    router = router_of(Route(SourceAvailable, listener))
    async with open_bus(router) as bus, working(router, database, bus) as worker:
        await bus.publish([plain({"Records": records}, "source_available", message_id="m-1")])
        await eventually(lambda: listener.has_heard(2))
        (dead,) = (row for row in await all_work(database) if row.state is State.DEAD)
        await replay(database, [dead.id])
        worker.wake()

        async def is_dead_again() -> bool:
            (row,) = (row for row in await all_work(database) if row.id == dead.id)
            return row.state is State.DEAD and row.attempt == 1

        await eventually(is_dead_again)

    assert len(listener.heard) == 2
