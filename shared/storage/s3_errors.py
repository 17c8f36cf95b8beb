"""What an S3 server or the way to it says, told as our errors. Pure.

Of a server's answer only its code is repeated: its prose may quote what was signed, or with which key.
"""

from __future__ import annotations

import asyncio

import aiohttp
import botocore.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)

from shared.kernel.errors import Conflict, NotFound, Refused, SpoolError, Unavailable

# What may be raised by a request, or while its body is received.
S3_FAILURES = (BotoCoreError, ClientError, aiohttp.ClientError, OSError, asyncio.TimeoutError)

_AWAY = (
    botocore.exceptions.ConnectionError,
    HTTPClientError,
    ResponseStreamingError,
    aiohttp.ClientError,
    OSError,
    asyncio.TimeoutError,
)
_CREDENTIALS = "give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
_BUSY = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "RequestTimeout",
        "RequestLimitExceeded",
        "OperationAborted",  # another operation on the same object goes on: AWS asks to try again
        "ConditionalRequestConflict",  # the same, of a conditional write
    }
)
_MISTAKEN = {
    "NoSuchBucket": "make the bucket, or correct SPOOL_STORAGE",
    "ExpiredToken": "the session's credentials have run out",
    "RequestTimeTooSkewed": "set this machine's clock",
}


class UploadGone(Unavailable):
    """The upload was aborted by somebody. A new one may succeed, this one never will."""


def code_of(error: BaseException | None) -> str:
    """Return the server's code for the error, or nothing when no server said it."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of the answer, 0 when there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def was_heard(error: BaseException) -> bool:
    """Say whether the request surely did nothing: the server said so, or was never reached."""
    cause = error.__cause__
    if isinstance(cause, EndpointConnectionError):  # also raised when the connection broke later
        return isinstance(cause.kwargs.get("error"), aiohttp.ClientConnectorError)
    return isinstance(cause, ClientError | ConnectTimeoutError)


def told_s3(subject: str, error: BaseException) -> SpoolError:
    """Return our error for what happened to `subject`, a key or the store."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return Refused("no credentials for S3 were found", hint=_CREDENTIALS)
    if isinstance(error, CredentialRetrievalError):
        return Unavailable("the credentials for S3 cannot be fetched at the moment", hint=_CREDENTIALS)
    if isinstance(error, ClientError):
        return _answered(subject, code_of(error), status_of(error))
    if isinstance(error, _AWAY):
        return Unavailable(f"the store does not answer for {subject}: {type(error).__name__}")
    return Refused(f"S3 cannot be asked for {subject}: {type(error).__name__}")


def _answered(subject: str, code: str, status: int) -> SpoolError:
    says = f"the store answers {code or status} for {subject}"
    if code in _MISTAKEN:
        return Unavailable(says, hint=_MISTAKEN[code])
    if code in (
        "NoSuchUpload",
        "InvalidPart",
    ):  # the second when it was aborted while parts were on their way
        return UploadGone(f"the upload of {subject} was aborted by the sweeper or by a later claim")
    if code in _BUSY or status >= 500 or status == 429:
        return Unavailable(says)
    if status == 404:
        return NotFound(f"{subject} does not exist")
    if status == 412:
        return Conflict(f"{subject} is not what the condition asks for")
    return Refused(says, hint=_hint(code, status))


def _hint(code: str, status: int) -> str | None:
    if code == "InvalidObjectState":
        return "the object is archived: restore it first"
    about_who_we_are = any(word in code for word in ("AccessKey", "Signature", "Authorization", "Token"))
    return _CREDENTIALS if status in (401, 403) or about_who_we_are else None
