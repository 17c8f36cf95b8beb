"""Secrets are not told: not in a log line, not in a traceback, not in a span."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

HIDDEN = "(hidden)"
SECRET_FIELDS = frozenset(
    {
        "api_key",
        "authorization",
        "aws_secret_access_key",
        "aws_session_token",
        "password",
        "secret",
        "secret_access_key",
        "session_token",
        "x_api_key",
    }
)
MAX_DEPTH = 4  # of a field that holds other fields; what is deeper is not looked at, and not written

# amqp://user:password@host: libraries put the address that they could not reach into their errors.
_IN_ADDRESS = re.compile(r"(?<=:)//[^/@\s]*:[^/@\s]*@")
# …?X-Amz-Signature=…, and the signature of our own lending.
_IN_QUERY = re.compile(
    r"([?&;](?:x-amz-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|token|api_?key|password)=)"
    r"[^&\s\"'<>]+",
    re.IGNORECASE,
)
# `aws_secret_access_key=…`, `"SecretAccessKey": "…"`, `Authorization: Basic …`
_NAMED = re.compile(
    r"\b((?:aws_)?secret_?access_?key|(?:aws_)?session_?token|password|x[-_]api[-_]key|authorization)"
    r"([\"']?\s*[:=]\s*[\"']?)(?:(?:basic|bearer|aws4-hmac-sha256)\s+[^\"'\n]+|[^\s\"',;&}]+)",
    re.IGNORECASE,
)
_AWS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")


def without_secrets(text: str) -> str:
    """Return the text with what looks like a credential left out."""
    # Looked for first: most texts hold none of these, and this is asked of every field of every line.
    if "=" in text or ":" in text:
        text = _IN_ADDRESS.sub(f"//{HIDDEN}@", text)
        text = _IN_QUERY.sub(rf"\1{HIDDEN}", text)
        text = _NAMED.sub(rf"\1\2{HIDDEN}", text)
    if "AKIA" in text or "ASIA" in text:
        text = _AWS_KEY_ID.sub(HIDDEN, text)
    return text


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return name.lower().replace("-", "_") in SECRET_FIELDS


def field_without_secrets(name: str, value: object, *, depth: int = 0) -> object:
    """Return what may be written of a field: by its name, and by what it looks like."""
    if _is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        return without_secrets(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth == MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {key: field_without_secrets(str(key), inner, depth=depth + 1) for key, inner in value.items()}
    return [field_without_secrets("", inner, depth=depth + 1) for inner in value]
