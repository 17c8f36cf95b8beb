"""`spool bus`: what a service needs on the broker is seen, and made, without a running Spool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.bus.local import LocalBus
from shared.runtime.lock import held_directory
from spool.cli.app import run_command
from spool.cli.failures import FAILED, OK
from spool.serving import SERVICES, subscriptions_of
from tests.e2e.running_spool import RunningSpool

QUEUES = ["clipper.source_available", "clipper.source_removed", "clipper.clip_requested", "clipper.dead"]


@pytest.fixture(params=["local", "aws"])
def bus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Name in the environment a bus on which nothing was declared."""
    address = "local:" if request.param == "local" else str(request.getfixturevalue("aws_url"))
    monkeypatch.setenv("SPOOL_BUS", address)
    monkeypatch.setenv("SPOOL_DATA_DIRECTORY", str(tmp_path))
    return address


@pytest.mark.usefixtures("bus")
def test_what_is_declared_is_shown_and_what_is_not_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    before, missing = run(capsys, "show")
    declared, made = run(capsys, "declare")
    again, _ = run(capsys, "declare")
    after, shown = run(capsys, "show")

    assert (before, declared, again, after) == (FAILED, OK, OK, OK)
    assert [queue["queue"] for queue in missing] == QUEUES
    assert [queue["unheard"] for queue in missing[:3]] == [[name.partition(".")[2]] for name in QUEUES[:3]]
    assert made == shown
    assert all(queue["exists"] and queue["ready"] == 0 and not queue["unheard"] for queue in shown)


async def test_the_services_listen_to_exactly_what_is_declared(spool: RunningSpool) -> None:
    assert isinstance(spool.bus, LocalBus)
    listened_to = {name for name in spool.bus._queues if name.partition(".")[0] in SERVICES}

    assert {subscription.queue for subscription in subscriptions_of(SERVICES)} == listened_to


def test_a_broker_that_is_away_is_told_in_one_line_that_names_the_setting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spool", "bus", "show", "--data", str(tmp_path)]
    environment = {**os.environ, "SPOOL_BUS": "amqp://user:hush-hush@127.0.0.1:1/"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    (line,) = ended.stderr.splitlines()
    assert ended.returncode == FAILED
    assert line.startswith("spool: SPOOL_BUS: RabbitMQ did not take a connection at amqp://127.0.0.1:1/")
    assert "hush-hush" not in line


def test_a_person_may_make_what_services_must_not(
    aws_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOOL_BUS", f"{aws_url}&create=no")
    monkeypatch.setenv("SPOOL_DATA_DIRECTORY", str(tmp_path))

    assert run(capsys, "declare")[0] == OK
    assert run(capsys, "show")[0] == OK


def test_the_queues_of_a_directory_in_use_are_left_to_its_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOOL_DATA_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("SPOOL_BUS", raising=False)
    with held_directory(tmp_path):
        code = run_command(["bus", "show"])

    assert code == FAILED
    assert "in use" in capsys.readouterr().err


def run(capsys: pytest.CaptureFixture[str], verb: str) -> tuple[int, list[dict[str, Any]]]:
    code = run_command(["bus", verb, "--json"])
    queues: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["queues"]
    return code, queues
