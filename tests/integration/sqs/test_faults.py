"""What AWS answers when it cannot or will not: said so, and tried again where that helps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from shared.bus.message import Subscription
from shared.bus.sqs import SqsBus
from shared.kernel.errors import Refused, Unavailable
from shared.settings.aws_address import AwsAddress
from tests.integration.aws_impostor import AwsImpostor, aws_impostor

if TYPE_CHECKING:
    pass
from tests.integration.sqs.traffic import QUICK
from tests.traffic import NOTHING_S, SOON_S, command, receive, until


async def test_without_credentials_the_bus_says_which_to_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        await SqsBus.open("aws:?endpoint=http://127.0.0.1:9&region=us-east-1")


async def test_without_a_region_the_bus_says_how_to_give_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(Refused, match="AWS_REGION"):
        await SqsBus.open("aws:")


async def test_an_address_that_nobody_answers_is_unavailable_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testtest")
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Unavailable, match="AWS does not answer"):
            await SqsBus.open("aws:?endpoint=http://127.0.0.1:9&region=us-east-1")


@pytest.fixture
async def impostor(aws_url: str) -> AsyncIterator[AwsImpostor]:
    """Return a way to MiniStack that answers some calls by itself."""
    async with aws_impostor(AwsAddress.parse(aws_url).sqs_endpoint or "") as impostor:
        yield impostor


@pytest.fixture
async def fooled(impostor: AwsImpostor, aws_url: str, asked: Subscription) -> AsyncIterator[SqsBus]:
    endpoint = AwsAddress.parse(aws_url).sqs_endpoint or ""
    bus = await SqsBus.open(aws_url.replace(endpoint, impostor.url), times=QUICK)
    await bus.declare([asked])
    yield bus
    impostor.behave()
    await bus.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(400, "Throttling", id="throttled"),
        pytest.param(503, "ServiceUnavailable", id="503"),
        pytest.param(500, "InternalError", id="500"),
        pytest.param(403, "ExpiredToken", id="token-expired"),
    ],
)
async def test_a_publish_that_aws_does_not_take_is_unavailable_and_health_says_so(
    fooled: SqsBus, impostor: AwsImpostor, status: int, code: str
) -> None:
    impostor.answer("PublishBatch", status, code)
    impostor.answer("ListTopics", status, code)
    with pytest.raises(Unavailable, match=code):
        await fooled.publish([command("a")])

    assert not fooled.health().connected
    assert code in fooled.health().reason

    impostor.behave()
    await until(lambda: fooled.health().connected)
    await fooled.publish([command("b")])


async def test_what_is_throttled_for_a_moment_is_repeated(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    impostor.answer("PublishBatch", 400, "Throttling", times=1)
    impostor.answer("ReceiveMessage", 503, "ServiceUnavailable", times=1)
    impostor.answer("DeleteMessageBatch", 500, "InternalError", times=1)
    await fooled.publish([command("a")])
    held = await receive(fooled, asked, 1)
    await fooled.acknowledge(held)

    assert held[0].message_id == "a"
    assert impostor.counted["PublishBatch"] >= 2


async def test_a_permission_that_is_missing_is_told_and_is_no_outage(
    fooled: SqsBus, impostor: AwsImpostor
) -> None:
    impostor.answer("PublishBatch", 403, "AuthorizationError")
    with pytest.raises(Unavailable, match="permissions"):
        await fooled.publish([command("a")])

    assert fooled.health().connected


async def test_only_what_failed_of_a_batch_is_published_again(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    impostor.drop_from_batches("3", "7")
    await fooled.publish([command(f"{number}") for number in range(10)])
    arrived = await receive(fooled, asked, 10)

    assert sorted(str(each.message_id) for each in arrived) == [f"{number}" for number in range(10)]
    assert impostor.counted["PublishBatch"] == 2
    assert await fooled.receive(asked, at_most=1, wait_s=NOTHING_S) == []


async def test_a_batch_that_is_too_large_for_one_call_goes_in_several(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    await fooled.publish([command(f"{number}", b"x" * 100_000) for number in range(7)])
    arrived = await receive(fooled, asked, 7)

    assert sorted(str(delivery.message_id) for delivery in arrived) == [f"{number}" for number in range(7)]
    assert impostor.counted["PublishBatch"] == 4  # two of them fit into 256 KiB


async def test_what_sns_refuses_for_good_is_not_tried_again(fooled: SqsBus, impostor: AwsImpostor) -> None:
    impostor.drop_from_batches("0", sender_fault=True)
    with pytest.raises(Refused, match="publish"):
        await fooled.publish([command("a"), command("b")])

    assert impostor.counted["PublishBatch"] == 1


async def test_an_acknowledgement_that_fails_lets_the_message_come_again(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    await fooled.publish([command("a")])
    held = await receive(fooled, asked, 1)
    impostor.answer("DeleteMessageBatch", 503, "ServiceUnavailable")
    with pytest.raises(Unavailable):
        await fooled.acknowledge(held)
    impostor.behave()
    await fooled.acknowledge(held)  # it is no longer held: nothing keeps it hidden, and it is brought again

    assert impostor.counted["DeleteMessageBatch"] == 3
