"""What looks like a secret is left out, and what does not is left as it is."""

from __future__ import annotations

import pytest

from shared.observability.redaction import field_without_secrets, without_secrets

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCY"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"cannot reach amqp://guest:{SECRET}@rabbit:5672/", id="amqp"),
        pytest.param(f"postgresql+asyncpg://spool:{SECRET}@db/spool is away", id="postgresql"),
        pytest.param(f"redis://:{SECRET}@cache", id="a password without a user"),
        pytest.param(
            f"GET https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature={SECRET}&x=1", id="S3"
        ),
        pytest.param(f"https://b/k?X-Amz-Security-Token={SECRET}", id="session token in a URL"),
        pytest.param(f"http://spool/media/clip.mp4?expires=1&signature={SECRET}", id="our own lending"),
        pytest.param(f"aws_secret_access_key = {SECRET}", id="a line of a profile"),
        pytest.param(f'{{"SecretAccessKey": "{SECRET}", "Expiration": "x"}}', id="an answer of STS"),
        pytest.param(f"{{'Authorization': 'Basic {SECRET}'}}", id="a header of Basic"),
        pytest.param(f"Authorization: AWS4-HMAC-SHA256 Credential=x, Signature={SECRET}", id="signed"),
        pytest.param(f"x-api-key: {SECRET}", id="our key"),
        pytest.param(f"password={SECRET}&user=x", id="a form"),
    ],
)
def test_a_secret_is_not_told(text: str) -> None:
    told = without_secrets(text)

    assert SECRET not in told
    assert "(hidden)" in told


def test_an_access_key_of_aws_is_not_told() -> None:
    assert without_secrets("user AKIAIOSFODNN7EXAMPLE may not") == "user (hidden) may not"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("s3://bucket/prefix?region=eu&endpoint=http://127.0.0.1:8333", id="an address"),
        pytest.param("clipId: does not match; cameraId: is missing", id="a reason"),
        pytest.param("amqp://rabbit:5672/", id="an address without a password"),
        pytest.param("the password is wrong", id="a word"),
        pytest.param("2026-11-22T21:48:05Z", id="a time"),
    ],
)
def test_what_is_no_secret_is_told_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        pytest.param("password", SECRET, "(hidden)", id="by its name"),
        pytest.param("X-Api-Key", SECRET, "(hidden)", id="by its name as a header"),
        pytest.param(
            "headers",
            {"authorization": SECRET, "host": "a"},
            {"authorization": "(hidden)", "host": "a"},
            id="deeper",
        ),
        pytest.param("urls", [f"amqp://a:{SECRET}@b"], ["amqp://(hidden)@b"], id="in a list"),
        pytest.param("attempt", 3, 3, id="a number"),
    ],
)
def test_a_field_is_hidden_by_its_name_and_by_its_look(name: str, value: object, told: object) -> None:
    assert field_without_secrets(name, value) == told
