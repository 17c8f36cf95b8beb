"""What every test may ask for: real servers where their addresses are given, a way to tell counts; two rules.

The addresses come from `eval "$(.ci/servers start)"`; a test that asks for a server without one is skipped,
unless SPOOL_TEST_NO_SKIPS=1: then a run with anything skipped has failed, whatever else passed.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import botocore.session
import pytest

from tests.s3_servers import SEAWEEDFS, address_of, empty_prefix

TEST_SECONDS = 60  # for one test; more with @pytest.mark.limit(seconds) and a reason beside it
TEARDOWN_SECONDS = 120  # also for fixtures that stop servers
COUNT = "count"  # what a test counted, in the properties of its report


@pytest.fixture(scope="session", autouse=True)
def _services_are_described_once() -> Iterator[None]:
    """Let botocore read a megabyte of JSON once in a run, and not for each of its thousand clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture
def amqp_url() -> str:
    """Return a RabbitMQ's address. All tests share its one virtual host: name things uniquely."""
    return address_of("SPOOL_TEST_AMQP")


@pytest.fixture
async def postgres_url() -> AsyncIterator[str]:
    """Return the address of an empty PostgreSQL database that only this test sees."""
    server = address_of("SPOOL_TEST_POSTGRES")
    name = f"spool_test_{uuid4().hex}"
    await _execute(server, f"CREATE DATABASE {name}")
    yield urlsplit(server)._replace(path=f"/{name}").geturl()
    await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def aws_url() -> str:
    """Return the address of SNS and SQS at a MiniStack, with a prefix that only this test sees."""
    return f"aws:?region=us-east-1&endpoint={address_of('SPOOL_TEST_AWS')}&prefix=test-{uuid4().hex[:12]}"


@pytest.fixture
def sqs_endpoint() -> str:
    """Return the endpoint of an ElasticMQ: SQS alone, exact about time. Name queues uniquely."""
    return address_of("SPOOL_TEST_SQS")


@pytest.fixture
def s3_url() -> str:
    """Return the address of an empty prefix in a bucket that only this test sees."""
    return empty_prefix(SEAWEEDFS)


@pytest.fixture
def tell_count(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Return what says a test's count at the end of the run, where a run that is green says it as well."""

    def tell(count: object) -> None:
        record_property(COUNT, str(count))

    return tell


async def _execute(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that takes too long, so that one that hangs does not take the others with it.

    A test that does not even take signals is ended, with the whole run, by `faulthandler_timeout`.
    """
    marker = item.get_closest_marker("limit")
    with ended_within(marker.args[0] if marker else TEST_SECONDS, "test"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """Bound the end as well: pytest's own alarm, `faulthandler_timeout`, is off once a test has failed."""
    with ended_within(TEARDOWN_SECONDS, "teardown"):
        return (yield)


@contextmanager
def ended_within(seconds: int, what: str) -> Iterator[None]:
    """Fail the test when the block takes longer."""

    def give_up(_signal: int, _frame: FrameType | None) -> NoReturn:
        pytest.fail(f"the {what} did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted, of tests that passed and of those that did not."""
    told = [
        f"{report.nodeid}: {value}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == COUNT
    ]
    if told:
        terminalreporter.section("what was counted")
    for line in told:
        terminalreporter.line(line)


class _NoSkips:
    """Turns a run in which something was skipped, or expected to fail, into a failed one."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:  # an expected failure is reported as skipped too
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self.skipped:
            terminalreporter.write_line(f"SKIPPED although SPOOL_TEST_NO_SKIPS is set: {nodeid}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Honour SPOOL_TEST_NO_SKIPS."""
    if os.environ.get("SPOOL_TEST_NO_SKIPS") == "1":
        config.pluginmanager.register(_NoSkips(), "no-skips")
