"""The document that other teams build on: valid by AsyncAPI's own schema, and true of what Spool does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker, ValidationError

from shared.events.envelope import EventData
from shared.events.reading import Letter, read_event
from shared.events.registry import TYPES
from shared.events.unreadable import Unreadable
from spool.asyncapi import as_yaml, document
from spool.event_examples import EXAMPLES, example_event
from spool.event_schemas import schema_of

HERE = Path(__file__).parent
SPOOL = document()
ASYNCAPI = Draft7Validator(json.loads((HERE / "asyncapi" / "asyncapi-3.0.0.schema.json").read_bytes()))
MESSAGES = SPOOL["components"]["messages"]
GOLDEN = sorted((HERE / "events").glob("*.json"))


def resolved(reference: dict[str, str]) -> Any:
    """Follow a reference within the document, which fails when it leads nowhere."""
    found: Any = SPOOL
    for step in reference["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def holds(schema: object, value: object) -> bool:
    """Tell whether a value is as a schema of the document says."""
    whole = {"allOf": [schema], "components": SPOOL["components"]}
    return bool(Draft7Validator(whole, format_checker=FormatChecker()).is_valid(value))


def references(part: object) -> list[dict[str, str]]:
    if isinstance(part, list):
        return [found for each in part for found in references(each)]
    if not isinstance(part, dict):
        return []
    own = [part] if isinstance(part.get("$ref"), str) else []
    return own + [found for each in part.values() for found in references(each)]


def test_the_document_is_valid_by_the_schema_of_asyncapi() -> None:
    ASYNCAPI.validate(SPOOL)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(["asyncapi"], "3.9.9", id="version"),
        pytest.param(["operations", "clipper_sends_clip_failed", "action"], "shout", id="action"),
        pytest.param(["channels", "clip_failed", "bindings", "amqp", "is"], "street", id="amqp binding"),
        pytest.param(["channels", "clip_failed", "bindings", "sns"], {}, id="sns binding"),
        pytest.param(["components", "messages", "clip_failed.plain", "examples"], 7, id="examples"),
    ],
)
def test_a_document_that_is_wrong_would_be_noticed(path: list[str], value: object) -> None:
    wrong = copy.deepcopy(SPOOL)
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(ValidationError):
        ASYNCAPI.validate(wrong)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(SPOOL):
        resolved(reference)


def test_every_type_has_a_channel_and_an_example() -> None:
    assert set(TYPES) <= SPOOL["channels"].keys()
    assert [each.type for each in EXAMPLES] == list(TYPES)


@pytest.mark.parametrize("name", MESSAGES)
def test_an_example_is_what_its_schema_says(name: str) -> None:
    message = MESSAGES[name]
    for example in message["examples"]:
        assert holds(message["payload"], example["payload"])
        assert "headers" not in message or holds(message["headers"], example["headers"])


@pytest.mark.parametrize("name", [name for name in MESSAGES if not name.endswith(".plain")])
def test_an_example_is_understood_by_spool(name: str) -> None:
    expected = name.partition(".")[0]
    (example,) = MESSAGES[name]["examples"]
    letter = Letter(json.dumps(example["payload"]).encode(), "message-1", {}, MESSAGES[name]["contentType"])

    assert read_event(letter, expected=expected).event.type == expected


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_spool_ever_published_is_what_the_schema_says(path: Path) -> None:
    event = json.loads(path.read_bytes())
    schema = schema_of(TYPES[event["type"]])

    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(event)
    assert holds(MESSAGES[f"{event['type']}.cloud_event"]["payload"], event)


def broken(data: EventData) -> list[dict[str, Any]]:
    """Return an example with each of its members that have to be there taken away, one at a time."""
    whole = json.loads(example_event(data).to_bytes())
    needed = [name for name, field in type(data).model_fields.items() if field.is_required()]
    names = [type(data).model_fields[name].alias or name for name in needed]
    lacking = [{**whole, "data": {k: v for k, v in whole["data"].items() if k != name}} for name in names]
    return lacking + [{k: v for k, v in whole.items() if k != name} for name in ("id", "source", "type")]


@pytest.mark.parametrize("data", EXAMPLES, ids=lambda data: data.type)
def test_the_schema_and_the_reader_refuse_the_same(data: EventData) -> None:
    schema = Draft202012Validator(schema_of(type(data)))
    for event in broken(data):
        assert not schema.is_valid(event)
        with pytest.raises(Unreadable):
            read_event(Letter(json.dumps(event).encode(), "m"), expected=data.type)


def test_yaml_is_written_so_that_nothing_is_taken_for_something_else() -> None:
    found = as_yaml(
        {"a": {"on": "no", "text": 'a "b": #c\n', "null": None, "list": [1, [], {"x": {}}, [True]]}}
    )

    assert found == (
        '"a":\n'
        '  "on": "no"\n'
        '  text: "a \\"b\\": #c\\n"\n'
        '  "null": null\n'
        "  list:\n"
        "    - 1\n"
        "    - []\n"
        "    -\n"
        '      "x": {}\n'
        "    -\n"
        "      - true\n"
    )
