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
_PERMISSION = "let these credentials list the bucket, and read, write and delete below its prefix"
_ABILITIES = "`spool storage check` tells which options of SPOOL_STORAGE it can follow"
_BELOW = "here a key cannot lie below another key: give it another name"
_HINTS = {
    "AccessDenied": _PERMISSION,
    "AllAccessDisabled": _PERMISSION,
    "403": f"{_CREDENTIALS}; and {_PERMISSION}",  # the answer to a HEAD does not say which of the two
}
_ABORTED = frozenset({"NoSuchUpload", "InvalidPart"})  # the second while parts were on their way


class NotLetIn(Unavailable):
    """The store does not accept who we are, or what we may do. It will, once somebody has mended that.

    Not the fault of what is being done: a rotated key must not make dead letters of it. When it is one object
    alone that is denied, the store as a whole answers, and that is how the two are told apart.
    """


class UploadGone(Unavailable):
    """The upload was aborted by somebody. A new one may succeed, this one never will."""


_AS_CODE_SAYS: dict[str, tuple[type[SpoolError], str | None]] = {
    "SlowDown": (Unavailable, None),
    "Throttling": (Unavailable, None),
    "ThrottlingException": (Unavailable, None),
    "TooManyRequests": (Unavailable, None),
    "RequestTimeout": (Unavailable, None),
    "RequestLimitExceeded": (Unavailable, None),
    "OperationAborted": (Unavailable, None),  # another operation on the same object: AWS asks to try again
    "ConditionalRequestConflict": (Unavailable, None),  # the same, of a conditional write
    "NoSuchBucket": (Unavailable, "make the bucket, or correct SPOOL_STORAGE"),
    "ExpiredToken": (NotLetIn, "the session's credentials have run out"),
    "RequestTimeTooSkewed": (NotLetIn, "set this machine's clock"),
    "NotImplemented": (Refused, _ABILITIES),
    "501": (Refused, _ABILITIES),
    "InvalidStorageClass": (Refused, "leave the option storage_class out of SPOOL_STORAGE"),
    # Servers that keep objects as files, as a directory of ours does.
    "ObjectParentIsFile": (Refused, _BELOW),
    "ExistingObjectIsDirectory": (Refused, _BELOW),
    "InvalidObjectState": (Refused, "the object is archived: restore it first"),
}


_AS_STATUS_SAYS: dict[int, tuple[type[SpoolError], str]] = {
    404: (NotFound, "does not exist"),
    412: (Conflict, "is not what the condition asks for"),
}


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
        return NotLetIn("no credentials for S3 were found", hint=_CREDENTIALS)
    if isinstance(error, CredentialRetrievalError):
        return Unavailable("the credentials for S3 cannot be fetched at the moment", hint=_CREDENTIALS)
    if isinstance(error, ClientError):
        return _answered(subject, code_of(error), status_of(error))
    if isinstance(error, _AWAY):
        return Unavailable(f"the store does not answer for {subject}: {type(error).__name__}")
    return Refused(f"S3 cannot be asked for {subject}: {type(error).__name__}")


def _answered(subject: str, code: str, status: int) -> SpoolError:
    if code in _ABORTED:
        return UploadGone(f"the upload of {subject} was aborted by the sweeper or by a later claim")
    if code in _AS_CODE_SAYS:
        kind, hint = _AS_CODE_SAYS[code]
        return kind(f"the store answers {code} for {subject}", hint=hint)
    if status in _AS_STATUS_SAYS:
        kind, said = _AS_STATUS_SAYS[status]
        return kind(f"{subject} {said}")
    says = f"the store answers {code or status} for {subject}"
    if status >= 500 or status == 429:
        return Unavailable(says)
    if status in (401, 403) or _is_about_us(code):
        return NotLetIn(says, hint=_HINTS.get(code, _CREDENTIALS))
    return Refused(says)


def _is_about_us(code: str) -> bool:
    """Say whether a code blames the credentials: some servers send it as a 400."""
    return any(word in code for word in ("AccessKey", "Signature", "Authorization", "Token"))
