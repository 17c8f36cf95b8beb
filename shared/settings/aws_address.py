"""`aws:?prefix=…&topics=…`, taken apart. Pure: the settings check it, the bus opens it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

_PREFIX = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")
_OPTIONS = frozenset({"region", "endpoint", "sns_endpoint", "sqs_endpoint", "prefix", "topics", "create"})


@dataclass(frozen=True, slots=True)
class AwsAddress:
    """Where SNS and SQS are, and what things are called there.

    Credentials never stand in it: the standard chain of the AWS SDKs finds them, and what is None here.
    """

    region: str | None = None
    sns_endpoint: str | None = None
    sqs_endpoint: str | None = None
    prefix: str = "spool"  # of every topic and queue of the installation
    topics: Literal["one", "family"] = "one"  # one topic for all events, or one per first word of the type
    create: bool = True  # False: what is missing is an error instead of being made

    @classmethod
    def parse(cls, address: str) -> AwsAddress:
        """Take the address apart. Raises ValueError, which says what is wrong with it."""
        parts = urlsplit(address)
        if parts.scheme != "aws" or parts.netloc or parts.path or parts.fragment:
            raise ValueError("is aws: with options behind a question mark, as aws:?region=eu-central-1")
        given = parse_qsl(parts.query, keep_blank_values=True)
        options = dict(given)
        if unknown := sorted(options.keys() - _OPTIONS):
            raise ValueError(f"does not know {', '.join(unknown)}; known are {', '.join(sorted(_OPTIONS))}")
        if twice := [name for name, number in Counter(name for name, _ in given).items() if number > 1]:
            raise ValueError(f"{', '.join(twice)} is given twice; once is enough")
        endpoint = _endpoint(options, "endpoint")
        return cls(
            region=_region(options.get("region")),
            sns_endpoint=_endpoint(options, "sns_endpoint") or endpoint,
            sqs_endpoint=_endpoint(options, "sqs_endpoint") or endpoint,
            prefix=_prefix(options.get("prefix", "spool")),
            topics=_topics(options.get("topics", "one")),
            create=_yes_or_no(options, "create", default=True),
        )


def _endpoint(options: dict[str, str], name: str) -> str | None:
    endpoint = options.get(name)
    if endpoint is None:
        return None
    if not _is_endpoint(endpoint):
        raise ValueError(
            f"{name} looks like https://host:port, without credentials; leave it out for AWS's own"
        )
    return endpoint


def _is_endpoint(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port  # looked at, because only this raises for a port that is none
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _region(region: str | None) -> str | None:
    if region and not _REGION.fullmatch(region):
        raise ValueError("region looks like eu-central-1: letters, digits and - only")
    return region or None


def _prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("prefix has 1 to 32 letters, digits, - and _, with a letter or digit at both ends")
    return prefix


def _topics(topics: str) -> Literal["one", "family"]:
    if topics == "one":
        return "one"
    if topics == "family":
        return "family"
    raise ValueError("topics is one (for all events) or family (one per first word of the type)")


def _yes_or_no(options: dict[str, str], name: str, *, default: bool) -> bool:
    match options.get(name):
        case None:
            return default
        case "yes":
            return True
        case "no":
            return False
    raise ValueError(f"{name} is yes or no")
