"""What an object store tells of its objects: recordings that came, and recordings that went.

Three forms of it: the `Records` of S3 and of what speaks like it, `s3:TestEvent`, and EventBridge's events.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from shared.events.envelope import EventData
from shared.events.object_name import named_source
from shared.events.parsing import check_plain
from shared.events.source import SourceAvailable, SourceRemoved
from shared.events.unreadable import FieldProblem, Unreadable
from shared.kernel.ids import derived_id

# By the first word of `eventName`, or by EventBridge's `detail-type`.
_TYPES: dict[str, type[EventData]] = {
    "ObjectCreated": SourceAvailable,
    "Object Created": SourceAvailable,
    "ObjectRemoved": SourceRemoved,
    "LifecycleExpiration": SourceRemoved,
    "Object Deleted": SourceRemoved,
}
TYPES_OF_S3 = frozenset(data_type.type for data_type in _TYPES.values())
_KEY = "s3.object.key"
_VIDEO = re.compile(r"\.(mp4|m4v|mov|mkv|webm|ts)$", re.IGNORECASE)
_ENCODED = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where Spool's objects are. `prefix` is empty or ends with `/`.

    Keys below one of `own`, counted from the prefix, are what Spool itself writes.
    """

    name: str
    prefix: str = ""
    own: tuple[str, ...] = ()


def is_s3(parsed: Mapping[str, Any]) -> bool:
    """Tell whether an object is a notification of an object store, in any of its forms."""
    if is_test(parsed) or _is_bridged(parsed):
        return True
    records = parsed.get("Records")
    return isinstance(records, list) and any(isinstance(each, dict) and "s3" in each for each in records)


def is_test(parsed: Mapping[str, Any]) -> bool:
    """Tell whether it is what a store sends when notifications are set up: it tells of no object."""
    return parsed.get("Event") == "s3:TestEvent"


def records_of(parsed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Take a notification apart: one of each record, none of a test. Raises Unreadable."""
    check_plain(parsed)
    if is_test(parsed):
        return []
    if _is_bridged(parsed):
        return [parsed]
    return [{**parsed, "Records": [record]} for record in parsed["Records"]]


def body_of(record: Mapping[str, Any]) -> bytes:
    """Write the notification of one record, for keeping it apart from its neighbours."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def as_cloud_event(
    record: Mapping[str, Any], *, expected: str, bucket: Bucket | None, transport: tuple[str, str]
) -> dict[str, Any] | None:
    """Say in Spool's words what one record tells; None when that is of no interest for `expected`.

    `bucket` is where Spool's objects are; without one a key is taken as it is. `transport` is the source and
    id of a record that has no sequencer. Raises Unreadable.
    """
    told = record if _is_bridged(record) else record["Records"][0]
    if not isinstance(told, dict):
        raise _unreadable("Records", f"holds a {type(told).__name__}")
    happened = _happened(told)
    data_type = _TYPES.get(happened)
    if data_type is None or data_type.type != expected:
        return None

    place = told.get("detail" if _is_bridged(record) else "s3")
    name, obj = _text(place, "bucket", "name"), _part(place, "object")
    whole_key = _decoded(_text(place, "object", "key"), bridged=_is_bridged(record))
    key = _own_key(whole_key, name, bucket)
    data = None if key is None else _data(key, obj, data_type)
    if data is None:
        return None
    source, event_id = _identity(data_type, name, whole_key, obj) or transport
    time = told.get("eventTime", told.get("time"))
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": expected,
        "time": time if isinstance(time, str) else None,
        "data": data,
    }


def _is_bridged(parsed: Mapping[str, Any]) -> bool:
    return parsed.get("source") == "aws.s3" and isinstance(parsed.get("detail"), dict)


def _happened(told: Mapping[str, Any]) -> str:
    """Return the class of what happened: MinIO and versitygw write `s3:` before it, S3 does not."""
    name = told.get("eventName", told.get("detail-type"))
    if not isinstance(name, str):
        raise _unreadable("eventName", "is missing")
    return name.removeprefix("s3:").split(":", 1)[0]


def _own_key(key: str, name: str, bucket: Bucket | None) -> str | None:
    """Return the key as Spool's store knows it; None for what Spool wrote itself or never looks at."""
    if bucket is None:
        return key
    if name != bucket.name:
        raise _unreadable("s3.bucket.name", f"is {name}; Spool's objects are in {bucket.name}")
    if not key.startswith(bucket.prefix):
        return None
    own = key.removeprefix(bucket.prefix)
    return None if own.startswith(bucket.own) else own


def _data(key: str, obj: Mapping[str, Any], data_type: type[EventData]) -> dict[str, Any] | None:
    named = named_source(key)
    if named is None:
        # A video that nobody can place in time is missed by somebody; a picture, or what went, is not.
        if data_type is SourceAvailable and _VIDEO.search(key):
            form = "<camera>.stream.YYYYmmddTHHMMSSmmm.mp4 or <camera>.YYYYmmddTHHMMSS.mp4, in UTC"
            raise _unreadable(_KEY, f"{key} tells no camera and time; a name that does is {form}")
        return None
    if data_type is SourceRemoved:
        return {"cameraId": named.camera_id, "key": key}
    data = {"cameraId": named.camera_id, "key": key, "startTimestampInMs": named.start_ms}
    size = obj.get("size")
    # versitygw writes 0 for what was uploaded in parts: then nothing is known.
    return data | {"sizeBytes": size} if isinstance(size, int) and size > 0 else data


def _identity(
    data_type: type[EventData], name: str, key: str, obj: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Return source and id: the same whichever way the notification took. None without a sequencer.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html
    """
    sequencer = obj.get("sequencer")
    if not isinstance(sequencer, str) or not sequencer:
        return None
    return f"s3:{name}", derived_id(data_type.type, name, key, sequencer)


def _decoded(key: str, *, bridged: bool) -> str:
    """Undo what S3 does to keys: as in the query of a URL, but not on the way through EventBridge.

    versitygw encodes nothing. That shows where a key has what an encoded one never has.
    """
    return key if bridged or not _ENCODED.fullmatch(key) else unquote_plus(key)


def _part(place: object, name: str) -> Mapping[str, Any]:
    part = place.get(name) if isinstance(place, dict) else None
    if not isinstance(part, dict):
        raise _unreadable(f"s3.{name}", "is missing")
    return part


def _text(place: object, part: str, name: str) -> str:
    value = _part(place, part).get(name)
    if not isinstance(value, str) or not value:
        raise _unreadable(f"s3.{part}.{name}", "is missing")
    return value


def _unreadable(field: str, message: str) -> Unreadable:
    return Unreadable((FieldProblem(field, message),))
