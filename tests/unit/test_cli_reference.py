"""The commands that print what events are: the same as the reference, and no Spool has to run."""

from __future__ import annotations

import json

import pytest

from shared.events.registry import TYPES
from spool.asyncapi import as_json, as_yaml, document
from spool.cli.app import run_command
from spool.cli.failures import OK
from spool.event_schemas import schema_of


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        pytest.param(["asyncapi"], as_json(document()), id="json"),
        pytest.param(["asyncapi", "--format", "yaml"], as_yaml(document()), id="yaml"),
    ],
)
def test_the_document_is_printed(
    arguments: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == OK
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", TYPES)
def test_a_schema_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["events", "schema", name]) == OK
    assert json.loads(capsys.readouterr().out) == schema_of(TYPES[name])


@pytest.mark.parametrize(
    "arguments",
    [["events", "schema", "clip_eaten"], ["events", "tail", "--type", "clip_eaten"]],
    ids=["schema", "tail"],
)
def test_a_type_that_is_none_is_refused_with_those_that_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) != OK
    said = capsys.readouterr().err
    assert "clip_eaten" in said
    assert "clip_requested" in said
