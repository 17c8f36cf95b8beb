"""The names of topics and queues: what AWS allows, and who is told what to shorten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.bus.message import Subscription
from shared.bus.sqs_names import MAX_QUEUE_CHARACTERS, Names, queue_arn
from shared.kernel.errors import Refused
from shared.settings.aws_address import AwsAddress

ASKED = Subscription("clipper", "clip_requested", ("clip_requested",))
ONE = Names(AwsAddress())
FAMILY = Names(AwsAddress(topics="family", prefix="test_1-a"))


@pytest.mark.parametrize(
    ("names", "event_type", "topic"),
    [
        pytest.param(ONE, "clip_requested", "spool", id="one for all"),
        pytest.param(ONE, "any thing.at/all", "spool", id="one for all, whatever the type"),
        pytest.param(FAMILY, "clip_requested", "test_1-a-clip", id="the first word"),
        pytest.param(FAMILY, "clip", "test_1-a-clip", id="the only word"),
        pytest.param(FAMILY, "clip-2_requested", "test_1-a-clip-2", id="a word with a dash"),
    ],
)
def test_a_type_has_its_topic(names: Names, event_type: str, topic: str) -> None:
    assert names.topic(event_type) == topic


@pytest.mark.parametrize("event_type", ["", "_requested", "cl.ip_requested", "cl\u00edp_x", "clip requested"])
def test_a_family_that_no_topic_can_be_named_by_is_refused(event_type: str) -> None:
    with pytest.raises(Refused, match=r"the type .* has characters that AWS does not allow") as refused:
        FAMILY.topic(event_type)

    assert repr(event_type) in str(refused.value)


def test_queues_have_the_prefix_and_are_spoken_of_without() -> None:
    assert ONE.queue(ASKED) == "spool-clipper-clip_requested"
    assert ONE.dead_letters("clipper") == "spool-clipper-dead"
    assert ONE.spoken("spool-clipper-clip_requested", "clipper") == "clipper.clip_requested"
    assert ONE.spoken("another", "clipper") == "clipper.another"


def test_a_queue_may_have_as_many_characters_as_sqs_allows() -> None:
    room = MAX_QUEUE_CHARACTERS - len("spool-clipper-")
    longest = replace(ASKED, name="q" * room)

    assert len(ONE.queue(longest)) == 80
    with pytest.raises(Refused, match="longer name than SQS allows") as refused:
        ONE.queue(replace(ASKED, name="q" * (room + 1)))
    assert refused.value.hint == "shorten the prefix"


@pytest.mark.parametrize("name", ["clip.requested", "clip requested", "clip/requested", "cl\u00edp", "a\n"])
def test_a_queue_with_characters_that_aws_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=r"the queue .* has characters that AWS does not allow"):
        ONE.queue(replace(ASKED, name=name))


@pytest.mark.parametrize(
    ("topic", "queue"),
    [
        pytest.param("arn:aws:sns:eu-central-1:12:spool", "arn:aws:sqs:eu-central-1:12:q", id="the world"),
        pytest.param("arn:aws-cn:sns:cn-north-1:12:spool", "arn:aws-cn:sqs:cn-north-1:12:q", id="China"),
    ],
)
def test_a_queue_is_in_the_account_and_region_of_its_topic(topic: str, queue: str) -> None:
    assert queue_arn(topic, "q") == queue
