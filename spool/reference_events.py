"""The page of `docs/reference/` about events: how they come and go, and each of them with an example."""
# A row of a table cannot be wrapped.
# ruff: noqa: E501

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shared.bus.rabbitmq_topology import EXCHANGE
from shared.events.envelope import EventData, Kind
from shared.events.registry import TYPES
from spool.asyncapi import AWS, queue_of, receivers_of, senders_of
from spool.event_examples import EXAMPLES, example_event, plain_example
from spool.event_schemas import said_of, schema_of

_EXAMPLES = {type(each).type: each for each in EXAMPLES}

_NOBODY = {Kind.COMMAND: "no service yet", Kind.FACT: "whoever subscribes"}

INTRODUCTION = """\
Spool is asked by events, and tells by events what happened. They are CloudEvents 1.0 in JSON, structured mode
(`application/cloudevents+json`): `type` is a name below, `subject` what the event is about, `data` its fields.
The same as documents for machines: [asyncapi.json](asyncapi.json), also from `spool asyncapi`, and a JSON Schema
of each event in [schemas](schemas), also from `spool events schema TYPE`.

- **Dedupe on the id.** Delivery is at least once. What is told again, after a crash or a lost confirm, has the same
  `source` and `id` as before; another outcome of the same request has another. Keep the ids that you have worked, as
  Spool's own inbox does, or make the work itself repeatable.
- **Order by `sequence`.** It grows by one with each event that a Spool tells about one `subject`, from the seconds
  since 1970 at the first of them, and jumps when a subject comes back that was long forgotten. Text of twelve digits:
  of two events the greater is the later one. Brokers may turn events around; `sequence` stays true.
- **Commands and facts.** A command asks for something, and somebody has to be there: one that nobody is subscribed to
  stays in the outbox until somebody is. A fact is told whether anybody listens or not.
- **Trace.** `traceparent` (W3C) goes in with a request and comes out with its result.
- **What is added later.** A type only ever gains optional fields. Pass over fields that you do not know."""

FORMS = """\
## What comes in

Besides structured CloudEvents Spool understands what other systems send already. Each form has an identity of its
own, by which it is worked once however often it comes; requests are also recognised by their own key (`clipId`).

| form | known by | identity |
| --- | --- | --- |
| CloudEvent, structured; JSON in `data_base64` as well as in `data` | `specversion` in the body | its `source` and `id` |
| CloudEvent, binary | headers or message attributes `cloudEvents:id`, `cloudEvents_id`, `ce-id` or `ce_id`, with `specversion`, `source`, `type` and so on alike | its `source` and `id` |
| bare body: the `data` alone | none of the others; the queue says what type it is | the message's own id: `MessageId` of SNS, else of SQS; `message_id` of AMQP; else it is new each time |
| bare body of a call, `{"recordingID", "callEndingTimestamp"}` | as above | as above |
| the same in single quotes, with `True`, `False`, `None` | it is no JSON | as above |
| envelope of SNS around any of these, without raw delivery | `"Type": "Notification"` | of what is inside; a bare body has the `MessageId` of SNS |
| notification of S3, also by EventBridge | `Records[].s3`, or `"source": "aws.s3"` | bucket, key, what happened, `sequencer`; without a sequencer the message's id with the number of the record |

A notification of S3 may hold several records: each becomes an event of its own, and a bad one does not hold up the
others. `ObjectCreated:*` is `source_available`, `ObjectRemoved:*` and `LifecycleExpiration:*` are `source_removed`,
each on its own queue; what is of no interest to a queue is acknowledged and counted
(`spool_received_messages_total{result="ignored"}`), and so is `s3:TestEvent`. The camera and the start come from the
object's name, `<camera>.stream.YYYYmmddTHHMMSSmmm.mp4` or `<camera>.YYYYmmddTHHMMSS.mp4` in UTC; a video of
another name, or in another bucket than Spool's, is a dead letter. Give notifications a filter of prefix and suffix.

The form of a call that ended is read already, as `call_ended`, and waits for its service: there is a queue for it once
the merger is there, which joins calls to their screen recordings. Until then nothing takes it from a bus.

What cannot be read is kept as a dead letter under the id of its message, byte for byte, with every field that is
wrong: `spool dead-letters list`. The same event comes in when it is sent again without the fault, under the same id."""

PLAIN = """\
## Plain results

With `SPOOL_BUS_FORMAT=plain` Spool stands in for the older clip pipeline: results go out without an envelope, as its
subscribers parse them. `SPOOL_BUS_PLAIN_URL` is what their URLs begin with. On SNS the message is this object itself;
a subscriber gets the same as if it had been published below `default` with `MessageStructure: json`.

The event's attributes travel as headers or message attributes, `cloudEvents_id`, `cloudEvents_source`,
`cloudEvents_type`, `traceparent`, `cloudEvents_sequence`, `cloudEvents_subject` and `cloudEvents_time`: dedupe on
the first two. Where SQS has no room for all of them, the last ones are in the attribute `spool`.
Types without an older form go out as their bare `data`, which Spool reads as the same event; its own results in
plain form it does not read, and no service of it subscribes to them.

| event | `status` |
| --- | --- |
| `clip_available` | `CLIP_AVAILABLE` |
| `clip_not_available` | `CLIP_NOT_AVAILABLE` |
| `clip_refused` | `CLIP_TOO_LONG` for `too_long`, `CLIP_OUT_OF_RANGE` for `in_the_future`, else `CLIP_REFUSED` |
| `clip_failed` | `FATAL_ERROR` |

A request for another range or camera under a `clipId` that is taken already is refused as `conflicting_duplicate`.
That is told as a CloudEvent only: in plain form nothing is sent, because subscribers know a result by its `clipId` and
would lose the clip that they have. The older `CLIP_RETRY_TIMEOUT` is not sent, and `retryTimestamps` is empty: a later
clipper may send both."""


def events_page(made_by: str) -> str:
    """Return the page. `made_by` is the line that says where it comes from."""
    lines = ["# Events", made_by, INTRODUCTION, "", *_addresses(), "", FORMS, "", PLAIN]
    for data_type in TYPES.values():
        lines += _section(data_type)
    return "\n".join(lines) + "\n"


def _addresses() -> Iterator[str]:
    yield "## Addresses\n"
    yield f"On RabbitMQ everything passes the topic exchange `{EXCHANGE}`, with the type as routing key; bind a"
    yield f"durable queue of your own to hear. On AWS everything passes the SNS topic `{AWS.topic('clip_failed')}`"
    yield "(or one topic per family) with the message attribute `type`; subscribe a queue of your own with a filter"
    yield 'policy such as `{"type": ["clip_available", "clip_failed"]}`. [transports.md](transports.md) has more.'
    yield "To ask, publish to the exchange or the topic, or put the message straight into the queue of the"
    yield "service: there it needs no envelope, and no attributes.\n"
    yield "| event | who sends it | who works it | queue on RabbitMQ | queue on SQS |"
    yield "| --- | --- | --- | --- | --- |"
    for name in TYPES:
        queues = [queue_of(service, name) for service in receivers_of(name)]
        row = [", ".join(receivers_of(name)) or _NOBODY[TYPES[name].kind]]
        row += [", ".join(f"`{queue[place]}`" for queue in queues) for place in (0, 1)]
        yield f"| [`{name}`](#{name}) | {_senders(name)} | {' | '.join(row)} |"


def _senders(name: str) -> str:
    ours = senders_of(name)
    others = ["other systems"] if TYPES[name].kind is Kind.COMMAND or not ours else []
    return ", ".join([*ours, *others])


def _section(data_type: type[EventData]) -> Iterator[str]:
    name, example = data_type.type, _EXAMPLES[data_type.type]
    schema = schema_of(data_type)
    parts = schema["$defs"]
    yield f"\n## `{name}`\n"
    yield f"A {data_type.kind.value}. {said_of(data_type)}\n"
    yield f"`subject` is {_subject(example)}. Schema: [{name}.json](schemas/{name}.json).\n"
    yield from _fields(parts[data_type.__name__])
    for used in sorted(parts.keys() - {data_type.__name__}):
        yield f"\n`{used}`: {parts[used]['description']}\n"
        yield from _fields(parts[used])
    yield f"\n```json\n{_pretty(example_event(example).to_bytes())}\n```"
    plain = json.loads(plain_example(example))
    if plain != example_event(example).data:
        yield f"\nPlain:\n\n```json\n{json.dumps(plain, indent=2)}\n```"


def _subject(example: EventData) -> str:
    data = json.loads(example.model_dump_json(by_alias=True))
    return next(f"the `{name}`" for name, value in data.items() if value == example.subject)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    yield "| field | | what it is |"
    yield "| --- | --- | --- |"
    for field, described in schema["properties"].items():
        needed = "" if field in schema.get("required", ()) else "optional"
        said = described.get("description", "")
        yield f"| `{field}` | {needed} | {' '.join([said, _kind_of(described)]).strip()} |"


def _kind_of(described: dict[str, Any]) -> str:
    if "$ref" in described:
        return f"`{described['$ref'].rsplit('/', 1)[-1]}`."
    if described.get("type") == "array":
        return f"List, each: {_kind_of(described['items'])}"
    words = {"pattern": "matches", "minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above"}
    limits = [f"{word} `{_cell(described[key])}`" for key, word in words.items() if key in described]
    default = [f"by itself `{described['default']}`"] if described.get("default") not in (None, []) else []
    return f"{', '.join([str(described.get('type', 'value')).capitalize(), *limits, *default])}."


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")


def _pretty(body: bytes) -> str:
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
