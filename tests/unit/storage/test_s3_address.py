"""`s3://…` is taken apart once, and a wrong one is refused without repeating a secret."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.kernel.errors import Refused
from shared.storage.s3_address import S3Address
from shared.storage.s3_keeping import Keeping
from shared.storage.s3_limits import S3Limits


def test_an_address_says_bucket_prefix_endpoint_and_region() -> None:
    address = S3Address.parse("s3://media/spool/one/?endpoint=http://127.0.0.1:8333&region=eu-west-1")

    usual = (Keeping(), S3Limits())
    assert address == S3Address("media", "spool/one/", "http://127.0.0.1:8333", "eu-west-1", *usual)
    assert address.name == "s3://media/spool/one/"


def test_a_bucket_alone_is_an_address() -> None:
    assert S3Address.parse("s3://media") == S3Address("media", "", None, None, Keeping(), S3Limits())


def test_an_address_says_how_objects_are_kept() -> None:
    keeping = "encryption=aws:kms&kms_key=alias/media&storage_class=STANDARD_IA&tags=team=video,stage=a%20b"

    address = S3Address.parse(f"s3://media?{keeping}")

    tags = (("team", "video"), ("stage", "a b"))
    assert address.keeping == Keeping("aws:kms", "alias/media", "STANDARD_IA", tags)


def test_an_address_says_how_patient_the_store_is() -> None:
    patience = "connect_s=0.5&read_s=60&request_s=900&body_s=1200"

    address = S3Address.parse(f"s3://media?{patience}&attempts=3&connections=128&readers=1")

    times = S3Limits(connect_s=0.5, read_s=60, request_s=900, body_s=1200)
    assert address.limits == replace(times, attempts=3, connections=128, readers=1)


@pytest.mark.parametrize(
    ("option", "possible"),
    [
        pytest.param("read_s=soon", "a number of seconds from 1 to 3600", id="a word"),
        pytest.param("read_s=nan", "a number of seconds from 1 to 3600", id="no number"),
        pytest.param("body_s=inf", "a number of seconds from 1 to 86400", id="no end"),
        pytest.param("connect_s=0", "a number of seconds from 0.1 to 300", id="no time"),
        pytest.param("readers=9", "a whole number from 1 to 8", id="too many"),
        pytest.param("attempts=2.5", "a whole number from 1 to 20", id="half of one"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_with_those_that_can(option: str, possible: str) -> None:
    with pytest.raises(Refused, match=option.split("=", maxsplit=1)[0]) as refusal:
        S3Address.parse(f"s3://media?{option}")

    assert refusal.value.hint == possible


@pytest.mark.parametrize(
    ("url", "private"),
    [
        pytest.param("s3://media", True, id="Amazon's own, over TLS"),
        pytest.param("s3://media?endpoint=https://store.test", True, id="TLS"),
        pytest.param("s3://media?endpoint=http://127.0.0.1:9000", True, id="loopback"),
        pytest.param("s3://media?endpoint=http://[::1]:9000", True, id="loopback of IPv6"),
        pytest.param("s3://media?endpoint=http://localhost:9000", True, id="localhost"),
        pytest.param("s3://media?endpoint=http://minio:9000", False, id="another machine"),
        pytest.param("s3://media?endpoint=http://10.0.0.1:9000", False, id="another address"),
    ],
)
def test_payloads_are_signed_only_where_a_stranger_could_change_them(url: str, private: bool) -> None:
    assert S3Address.parse(url).is_private == private


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://media", id="another scheme"),
        pytest.param("s3:///prefix", id="no bucket"),
        pytest.param("s3://user:secret@media", id="credentials"),
        pytest.param("s3://media:9000", id="a port"),
        pytest.param("s3://media?endpoint=http://user:secret@host", id="credentials in the endpoint"),
        pytest.param("s3://media?endpoint=host:9000", id="an endpoint without scheme"),
        pytest.param("s3://media?endpoint=http://host:secret", id="a port that is none"),
        pytest.param("s3://media?secret=secret", id="an unknown option"),
        pytest.param("s3://media?encryption=rot13", id="an encryption that is none"),
        pytest.param("s3://media?encryption=AES256&kms_key=secret", id="a key for nothing"),
        pytest.param("s3://media?storage_class=DEEP_ARCHIVE", id="a class that has to be restored first"),
        pytest.param("s3://media?tags=team", id="a tag without a value"),
        pytest.param("s3://media?tags=a=1,a=2", id="a tag twice"),
        pytest.param("s3://media?tags=" + ",".join(f"{n}=" for n in range(11)), id="too many tags"),
        pytest.param("s3://media/a//b", id="a prefix that no key may have"),
        pytest.param("s3://[media", id="no URL"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        S3Address.parse(url)

    assert refusal.value.hint
    assert "user:secret" not in str(refusal.value)
