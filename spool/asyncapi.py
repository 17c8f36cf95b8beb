"""The published language as an AsyncAPI 3.0 document: what other teams build on.

Made from the registry, the services' own lists of what they receive and send, and the names that the
transports give. Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from services.clipper import app as clipper
from shared.bus.message import Subscription
from shared.bus.rabbitmq_topology import EXCHANGE
from shared.bus.sqs_names import Names
from shared.events.binary_mode import PREFIX
from shared.events.envelope import CONTENT_TYPE, EventData, Kind
from shared.events.plain import CONTENT_TYPE as PLAIN_TYPE
from shared.events.registry import TYPES
from shared.events.s3_notification import TYPES_OF_S3
from shared.events.source import SourceAvailable
from shared.settings.aws_address import AwsAddress
from spool.event_examples import EXAMPLES, example_event, plain_example, s3_example
from spool.event_schemas import event_name, said_of, schemas

VERSION = "1.0.0"  # of the language, not of Spool: it counts up when something is added to it
SERVICES = (clipper,)
AWS = Names(AwsAddress())
AMQP_BINDING, SNS_BINDING, SQS_BINDING = "0.3.0", "0.1.0", "0.2.0"
# Names that no reader of YAML takes for something else; any other is quoted.
_BARE_NAME = re.compile(r"(?!(?i:true|false|null|yes|off)$)[A-Za-z_][A-Za-z0-9_.]{2,}(?<!\.)")
_EXAMPLES = {type(each).type: each for each in EXAMPLES}
_ABOUT = """\
Spool looks after recordings. Other systems ask it by events, and hear by events what happened.

Delivery is at least once: a repeated announcement has the same `source` and `id`. Dedupe on them.
`sequence` grows with each event about one `subject`; order by it where order matters.

Addresses are those of RabbitMQ, where every event passes one topic exchange under its type. The bindings
name the topic, its filter and the queues of SNS and SQS, for an installation with the default prefix."""
Document = dict[str, Any]


def document() -> Document:
    """Return the whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Spool", "version": VERSION, "description": _ABOUT},
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "rabbitmq": {"host": "rabbitmq:5672", "protocol": "amqp", "protocolVersion": "0.9.1"},
            "aws": {"host": "sns.eu-central-1.amazonaws.com", "protocol": "sns"},
        },
        "channels": dict(_channels()),
        "operations": dict(_operations()),
        "components": {"messages": dict(_messages()), "schemas": _schemas()},
    }


def receivers_of(event_type: str) -> list[str]:
    """Return the services that work events of a type."""
    return [each.NAME for each in SERVICES if event_type in {data.type for data in each.RECEIVES}]


def senders_of(event_type: str) -> list[str]:
    """Return the services that tell or ask with events of a type."""
    return [each.NAME for each in SERVICES if event_type in {data.type for data in each.SENDS}]


def queue_of(service: str, event_type: str) -> tuple[str, str]:
    """Return what the queue of a service's subscription is called in RabbitMQ and in SQS."""
    subscription = Subscription(service=service, name=event_type, types=(event_type,))
    return subscription.queue, AWS.queue(subscription)


def _channels() -> Iterator[tuple[str, Document]]:
    for name in TYPES:
        yield name, _published(name)
        for service in receivers_of(name):
            yield f"{service}.{name}", _queue(service, name)


def _published(name: str) -> Document:
    kinds = ["cloud_event", *(["plain"] if senders_of(name) else [])]
    return {
        "address": name,
        "description": f"Everything of the type `{name}`.",
        "messages": {_message(name, kind): _ref(f"components/messages/{name}.{kind}") for kind in kinds},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": EXCHANGE, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": AMQP_BINDING,
            },
            "sns": {"name": AWS.topic(name), "bindingVersion": SNS_BINDING},
        },
    }


def _queue(service: str, name: str) -> Document:
    queue, sqs_queue = queue_of(service, name)
    kinds = ["cloud_event", "bare", *(["s3"] if name in TYPES_OF_S3 else [])]
    return {
        "address": queue,
        "description": f"The queue of the {service} for `{name}`. What is put here needs no envelope.",
        "messages": {_message(name, kind): _ref(f"components/messages/{name}.{kind}") for kind in kinds},
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {"name": queue, "durable": True, "exclusive": False, "autoDelete": False},
                "bindingVersion": AMQP_BINDING,
            },
            "sqs": {"queue": {"name": sqs_queue, "fifoQueue": False}, "bindingVersion": SQS_BINDING},
        },
    }


def _operations() -> Iterator[tuple[str, Document]]:
    for name, data_type in TYPES.items():
        for service in senders_of(name):
            yield f"{service}_sends_{name}", _sends(service, data_type)
        for service in receivers_of(name):
            yield f"{service}_receives_{name}", _receives(service, data_type)


def _sends(service: str, data_type: type[EventData]) -> Document:
    mandatory = data_type.kind is Kind.COMMAND
    return {
        "action": "send",
        "channel": _ref(f"channels/{data_type.type}"),
        "summary": f"The {service} tells `{data_type.type}`.",
        "bindings": {
            "amqp": {"deliveryMode": 2, "mandatory": mandatory, "bindingVersion": AMQP_BINDING},
        },
    }


def _receives(service: str, data_type: type[EventData]) -> Document:
    queue, sqs_queue = queue_of(service, data_type.type)
    consumer = {
        "protocol": "sqs",
        "endpoint": {"name": sqs_queue},
        "filterPolicy": {"type": [data_type.type]},
        "filterPolicyScope": "MessageAttributes",
        "rawMessageDelivery": True,
    }
    topic = {"name": AWS.topic(data_type.type)}
    return {
        "action": "receive",
        "channel": _ref(f"channels/{queue}"),
        "summary": f"The {service} works `{data_type.type}`, once, however often it is delivered.",
        "bindings": {
            "amqp": {"ack": True, "bindingVersion": AMQP_BINDING},
            "sns": {"topic": topic, "consumers": [consumer], "bindingVersion": SNS_BINDING},
        },
    }


def _messages() -> Iterator[tuple[str, Document]]:
    for name, data_type in TYPES.items():
        yield f"{name}.cloud_event", _cloud_event(data_type)
        if senders_of(name):
            yield f"{name}.plain", _plain(data_type)
        if receivers_of(name):
            yield f"{name}.bare", _bare(data_type)
            if name in TYPES_OF_S3:
                yield f"{name}.s3", _s3(data_type)


def _cloud_event(data_type: type[EventData]) -> Document:
    event = json.loads(example_event(_EXAMPLES[data_type.type]).to_bytes())
    headers = {"traceparent": event["traceparent"]}
    return {
        "name": data_type.type,
        "title": f"{data_type.type}, a {data_type.kind.value}",
        "description": said_of(data_type),
        "contentType": CONTENT_TYPE,
        "headers": _ref("components/schemas/Headers"),
        "payload": _ref(f"components/schemas/{event_name(data_type)}"),
        "x-dedupe-on": ["source", "id"],
        "examples": [{"name": "structured", "headers": headers, "payload": event}],
    }


def _plain(data_type: type[EventData]) -> Document:
    example = _EXAMPLES[data_type.type]
    event = example_event(example)
    headers = {f"{PREFIX}id": event.id, f"{PREFIX}source": event.source, f"{PREFIX}type": event.type}
    return {
        "name": data_type.type,
        "title": f"{data_type.type}, as SPOOL_BUS_FORMAT=plain sends it",
        "contentType": PLAIN_TYPE,
        "headers": _ref("components/schemas/PlainHeaders"),
        "payload": {"type": "object"},
        "examples": [{"name": "plain", "headers": headers, "payload": json.loads(plain_example(example))}],
    }


def _bare(data_type: type[EventData]) -> Document:
    data = json.loads(_EXAMPLES[data_type.type].model_dump_json(by_alias=True, exclude_none=True))
    return {
        "name": data_type.type,
        "title": f"{data_type.type} without an envelope",
        "description": "Also with single quotes, and within the envelope of SNS. Its id is its message's.",
        "contentType": PLAIN_TYPE,
        "payload": _ref(f"components/schemas/{data_type.__name__}"),
        "examples": [{"name": "bare", "payload": data}],
    }


def _s3(data_type: type[EventData]) -> Document:
    happened = "ObjectCreated:Put" if data_type is SourceAvailable else "ObjectRemoved:Delete"
    return {
        "name": data_type.type,
        "title": f"{data_type.type} as a notification of S3",
        "description": (
            "Several records are several events, each named by bucket, key and sequencer. An object is called"
            " `<camera>.stream.YYYYmmddTHHMMSSmmm.mp4` or `<camera>.YYYYmmddTHHMMSS.mp4`, in UTC."
        ),
        "contentType": PLAIN_TYPE,
        "payload": _ref("components/schemas/S3Notification"),
        "examples": [{"name": "s3", "payload": s3_example(happened)}],
    }


def _schemas() -> Document:
    text = {"type": "string", "minLength": 1}
    names = ("id", "source", "type", "specversion", "subject", "sequence", "time")
    record = {
        "type": "object",
        "required": ["eventName", "s3"],
        "properties": {
            "eventName": text,
            "s3": {
                "type": "object",
                "required": ["bucket", "object"],
                "properties": {
                    "bucket": {"type": "object", "required": ["name"], "properties": {"name": text}},
                    "object": {
                        "type": "object",
                        "required": ["key"],
                        "properties": {"key": text, "size": {"type": "integer"}, "sequencer": text},
                    },
                },
            },
        },
    }
    by_hand: Mapping[str, Document] = {
        "Headers": {
            "type": "object",
            "properties": {"traceparent": {**text, "description": "W3C trace context, where it is known."}},
        },
        "PlainHeaders": {
            "type": "object",
            "description": "A CloudEvent's attributes, as in binary mode: dedupe on source and id.",
            "required": [f"{PREFIX}{name}" for name in ("id", "source", "type")],
            "properties": {f"{PREFIX}{name}": text for name in names},
        },
        "S3Notification": {
            "type": "object",
            "required": ["Records"],
            "properties": {"Records": {"type": "array", "minItems": 1, "items": record}},
        },
    }
    return {**schemas("#/components/schemas/{model}"), **by_hand}


def _message(name: str, kind: str) -> str:
    return f"{name}_{kind}"


def _ref(path: str) -> dict[str, str]:
    return {"$ref": f"#/{path}"}


def as_json(found: Document) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def as_yaml(found: Document) -> str:
    """Write the document as YAML 1.2, in which every text may be quoted as in JSON."""
    return "\n".join(_yaml_lines(found, "")) + "\n"


def _yaml_lines(value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _yaml_entry(f"{indent}{_yaml_name(name)}:", inner, indent + "  ")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _yaml_entry(f"{indent}-", inner, indent + "  ")
    else:
        yield indent + json.dumps(value, ensure_ascii=False)


def _yaml_entry(start: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield start
        yield from _yaml_lines(value, indent)
    else:
        yield f"{start} {json.dumps(value, ensure_ascii=False)}"


def _yaml_name(name: str) -> str:
    return name if _BARE_NAME.fullmatch(name) else json.dumps(name)
