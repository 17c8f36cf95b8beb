"""What AWS answers, told as our errors: whose fault it is, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientConnectionError
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from shared.bus.sqs_errors import (
    AWS_FAILURES,
    DECLARE,
    QueueMissing,
    TopicMissing,
    code_of,
    is_stale,
    short_code,
    told_aws,
    was_answered,
)
from shared.kernel.errors import Unavailable

SECRET = "AKIA-the-key"  # what must not be repeated


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": f"signed with {SECRET}"},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]  # the rest is not read
        },
        "Publish",
    )


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"),
        ("NonExistentQueue", "NonExistentQueue"),
        ("KMS.ThrottlingException", "KMS.ThrottlingException"),
        ("AWS.", ""),
        ("", ""),
    ],
)
def test_a_code_is_told_without_the_prefix_that_some_servers_write(code: str, short: str) -> None:
    assert short_code(code) == short


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        pytest.param("AWS.SimpleQueueService.NonExistentQueue", QueueMissing, DECLARE, id="queue, of old"),
        pytest.param("QueueDoesNotExist", QueueMissing, DECLARE, id="queue"),
        pytest.param("NotFound", TopicMissing, DECLARE, id="topic"),
        pytest.param("NotFoundException", TopicMissing, DECLARE, id="topic, as an exception"),
        pytest.param("ExpiredToken", Unavailable, "give credentials as AWS_ACCESS_KEY_ID", id="expired"),
        pytest.param("SignatureDoesNotMatch", Unavailable, "give credentials as", id="wrong key"),
        pytest.param("AccessDenied", Unavailable, "lists the permissions that Spool needs", id="denied"),
        pytest.param("AuthorizationError", Unavailable, "lists the permissions", id="denied by SNS"),
        pytest.param("Throttling", Unavailable, None, id="busy"),
        pytest.param("SomethingNew", Unavailable, None, id="unknown"),
    ],
)
def test_an_answer_is_told_by_its_code_with_what_to_do(
    code: str, kind: type[Unavailable], hint: str | None
) -> None:
    told = told_aws("publish", answer(code))

    assert type(told) is kind
    assert str(told).startswith(f"AWS answers {short_code(code)} to publish")
    assert (hint is None and told.hint is None) or (hint is not None and hint in str(told.hint))
    assert SECRET not in f"{told} {told.hint}"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(NoCredentialsError(), "there are no credentials for it", id="none"),
        pytest.param(
            PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            "there are no credentials for it",
            id="half of them",
        ),
        pytest.param(
            CredentialRetrievalError(provider="iam", error_msg=SECRET),
            "there are no credentials",
            id="denied",
        ),
        pytest.param(
            EndpointConnectionError(endpoint_url=f"http://{SECRET}"), "does not answer", id="nobody there"
        ),
        pytest.param(ClientConnectionError(SECRET), "does not answer", id="connection lost"),
        pytest.param(TimeoutError(SECRET), "does not answer", id="too late"),
        pytest.param(ConnectionResetError(SECRET), "does not answer", id="reset"),
    ],
)
def test_a_failure_without_an_answer_is_unavailable_and_repeats_no_secret(
    error: Exception, says: str
) -> None:
    told = told_aws("publish", error)

    assert isinstance(error, AWS_FAILURES)
    assert isinstance(told, Unavailable)
    assert says in str(told)
    assert told.hint
    assert SECRET not in f"{told} {told.hint}"


def test_an_answer_without_a_code_is_told_by_its_status() -> None:
    assert str(told_aws("publish", answer("", 503))).startswith("AWS answers 503 to publish")


@pytest.mark.parametrize("response", [{}, {"Error": {}}, {"Error": {"Code": ""}}])
def test_an_answer_that_says_nothing_has_no_code(response: Any) -> None:
    assert code_of(ClientError(response, "Publish")) == ""


@pytest.mark.parametrize(
    ("error", "answered"),
    [
        pytest.param(answer("AccessDenied", 403), True, id="denied"),
        pytest.param(answer("NonExistentQueue"), True, id="missing"),
        pytest.param(answer("Throttling"), False, id="busy"),
        pytest.param(answer("InvalidClientTokenId", 403), False, id="unknown to it"),
        pytest.param(answer("SomethingNew", 500), False, id="broken"),
        pytest.param(answer("SomethingNew", 429), False, id="too many"),
        pytest.param(NoCredentialsError(), False, id="never asked"),
    ],
)
def test_aws_is_there_when_it_knows_us_and_is_not_busy(error: Exception, answered: bool) -> None:
    assert was_answered(error) is answered


@pytest.mark.parametrize(
    ("code", "stale"),
    [
        ("ReceiptHandleIsInvalid", True),
        ("AWS.SimpleQueueService.MessageNotInflight", True),
        ("InvalidParameterValueException", True),
        ("InternalError", False),
        ("", False),
    ],
)
def test_a_stale_receipt_is_told_from_a_moment_of_weakness(code: str, stale: bool) -> None:
    assert is_stale(code) is stale
