"""`s3://bucket/prefix?endpoint=…&region=…&encryption=…`, taken apart. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from shared.kernel.errors import Refused
from shared.kernel.keys import check_key
from shared.storage import s3_keeping, s3_limits
from shared.storage.s3_keeping import Keeping
from shared.storage.s3_limits import S3Limits

_EXAMPLE = "for example s3://recordings/spool?region=eu-central-1, or …?endpoint=http://127.0.0.1:8333"

_OPTIONS = {"endpoint", "region"} | s3_keeping.OPTIONS | s3_limits.OPTIONS


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where a store is. Credentials never stand in it; the standard chain of the AWS SDKs finds them."""

    bucket: str
    prefix: str  # empty, or ends with '/'
    endpoint: str | None
    region: str | None
    keeping: Keeping
    limits: S3Limits

    @classmethod
    def parse(cls, url: str) -> S3Address:
        """Take the address apart. Raises Refused, and never repeats what may be a secret."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise Refused("the storage address is not a URL", hint=_EXAMPLE) from error
        if parts.scheme != "s3" or not parts.netloc or parts.fragment:
            raise Refused("an S3 address looks like s3://bucket/prefix", hint=_EXAMPLE)
        if "@" in parts.netloc or ":" in parts.netloc:
            raise Refused(
                "an S3 address holds a bucket, no user, password or port",
                hint="give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a role",
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := sorted(options.keys() - _OPTIONS):
            raise Refused(f"an S3 address does not know {', '.join(unknown)}", hint=_EXAMPLE)
        return cls(
            bucket=parts.netloc,
            prefix=_prefix(parts.path.strip("/")),
            endpoint=_endpoint(options.get("endpoint")),
            region=options.get("region") or None,
            keeping=Keeping.parse(options),
            limits=S3Limits.parse(options),
        )

    @property
    def name(self) -> str:
        """What the journal calls the store: the same through every endpoint that leads to it."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def is_private(self) -> bool:
        """Whether nobody can change bytes on the way: TLS, or this machine's own loopback."""
        if self.endpoint is None:
            return True
        parts = urlsplit(self.endpoint)
        return parts.scheme == "https" or _is_loopback(parts.hostname or "")


def _prefix(path: str) -> str:
    if not path:
        return ""
    try:
        return check_key(path) + "/"
    except ValueError as error:
        raise Refused(f"the prefix of the S3 address cannot be one: {error}", hint=_EXAMPLE) from error


def _endpoint(endpoint: str | None) -> str | None:
    if not endpoint:
        return None
    try:
        parts = urlsplit(endpoint)
        _ = parts.port  # looked at, because only this raises for a port that is none
    except ValueError as error:
        raise Refused("the endpoint of the S3 address is not a URL", hint=_EXAMPLE) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise Refused("an endpoint looks like https://host:port, without credentials", hint=_EXAMPLE)
    return endpoint


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
