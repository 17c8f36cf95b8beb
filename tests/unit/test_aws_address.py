"""`aws:?…` taken apart: what is wrong with it names the option and what it may be."""

from __future__ import annotations

import re

import pytest

from shared.settings.aws_address import AwsAddress

MINE, OTHER = "http://127.0.0.1:4566", "https://sqs.example.com"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        pytest.param("aws:", AwsAddress(), id="nothing said"),
        pytest.param("aws:?", AwsAddress(), id="no options"),
        pytest.param("aws:?region=eu-central-1", AwsAddress(region="eu-central-1"), id="region"),
        pytest.param("aws:?region=", AwsAddress(), id="empty region: as the SDK finds it"),
        pytest.param(
            f"aws:?endpoint={MINE}", AwsAddress(sns_endpoint=MINE, sqs_endpoint=MINE), id="endpoint"
        ),
        pytest.param(
            f"aws:?endpoint={MINE}&sqs_endpoint={OTHER}",
            AwsAddress(sns_endpoint=MINE, sqs_endpoint=OTHER),
            id="one of them elsewhere",
        ),
        pytest.param(
            "aws:?endpoint=http%3A%2F%2F%5B%3A%3A1%5D%3A4566",
            AwsAddress(sns_endpoint="http://[::1]:4566", sqs_endpoint="http://[::1]:4566"),
            id="escaped",
        ),
        pytest.param("aws:?prefix=a", AwsAddress(prefix="a"), id="shortest prefix"),
        pytest.param(f"aws:?prefix={'a' * 32}", AwsAddress(prefix="a" * 32), id="longest prefix"),
        pytest.param("aws:?prefix=a-_9", AwsAddress(prefix="a-_9"), id="all that a prefix may have"),
        pytest.param("aws:?topics=family", AwsAddress(topics="family"), id="families"),
        pytest.param("aws:?create=no", AwsAddress(create=False), id="nothing is made"),
        pytest.param("aws:?create=yes&topics=one", AwsAddress(), id="what holds anyhow"),
    ],
)
def test_an_address_is_taken_apart(address: str, found: AwsAddress) -> None:
    assert AwsAddress.parse(address) == found


@pytest.mark.parametrize(
    ("address", "named"),
    [
        pytest.param("aws://eu-central-1", "is aws: with options behind a question mark", id="a host"),
        pytest.param("aws:eu-central-1", "is aws: with options behind a question mark", id="a path"),
        pytest.param("aws:?prefix=a#b", "is aws: with options behind a question mark", id="a fragment"),
        pytest.param("sqs:?prefix=a", "is aws: with options behind a question mark", id="another scheme"),
        pytest.param("aws:?regoin=x", "does not know regoin; known are create, endpoint", id="misspelt"),
        pytest.param("aws:?b=1&a=1", "does not know a, b; known are", id="several unknown"),
        pytest.param("aws:?Region=x", "does not know Region", id="in other letters"),
        pytest.param("aws:?prefix=a&prefix=b", "prefix is given twice", id="said twice"),
        pytest.param("aws:?region=eu%20west", "region looks like eu-central-1", id="odd region"),
        pytest.param("aws:?region=a/../b", "region looks like eu-central-1", id="a path for a region"),
        pytest.param("aws:?endpoint=localhost:4566", "endpoint looks like https://", id="no scheme"),
        pytest.param("aws:?endpoint=ftp://h", "endpoint looks like https://", id="another protocol"),
        pytest.param("aws:?endpoint=", "leave it out for AWS's own", id="a variable that is not set"),
        pytest.param("aws:?endpoint=http://", "endpoint looks like https://", id="no host"),
        pytest.param("aws:?endpoint=http://a:b@h", "without credentials", id="credentials"),
        pytest.param("aws:?sqs_endpoint=http://h:port", "sqs_endpoint looks like https://", id="no port"),
        pytest.param("aws:?sns_endpoint=http://h:99999", "sns_endpoint looks like", id="port too large"),
        pytest.param("aws:?endpoint=http://[::1", "endpoint looks like https://", id="half an IPv6"),
        pytest.param("aws:?prefix=", "prefix has 1 to 32 letters", id="empty prefix"),
        pytest.param("aws:?prefix", "prefix has 1 to 32 letters", id="prefix without a value"),
        pytest.param(f"aws:?prefix={'a' * 33}", "prefix has 1 to 32 letters", id="long prefix"),
        pytest.param("aws:?prefix=-a", "prefix has 1 to 32 letters", id="prefix begins with a dash"),
        pytest.param("aws:?prefix=a-", "prefix has 1 to 32 letters", id="prefix ends with a dash"),
        pytest.param("aws:?prefix=a.b", "prefix has 1 to 32 letters", id="prefix with a dot"),
        pytest.param("aws:?prefix=a%0A", "prefix has 1 to 32 letters", id="prefix with a line end"),
        pytest.param("aws:?prefix=%C3%A9", "prefix has 1 to 32 letters", id="prefix beyond ASCII"),
        pytest.param("aws:?topics=two", "topics is one", id="topics"),
        pytest.param("aws:?topics=", "topics is one", id="topics without a value"),
        pytest.param("aws:?create=true", "create is yes or no", id="create"),
        pytest.param("aws:?create=", "create is yes or no", id="create without a value"),
    ],
)
def test_what_is_wrong_names_the_option_and_what_it_may_be(address: str, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        AwsAddress.parse(address)
