"""What SNS, SQS or the way to them says, told as our errors. Pure.

Of an answer only its code is repeated: its prose may quote what was signed, or with which key.
"""

from __future__ import annotations

import asyncio

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from shared.kernel.errors import SpoolError, Unavailable

# What may be raised by a request.
AWS_FAILURES = (BotoCoreError, ClientError, aiohttp.ClientError, OSError, asyncio.TimeoutError)

DECLARE = "make what is missing with: spool bus declare"
_CREDENTIALS = "give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
_ADDRESS = "see the network, and region and endpoint in the address of the bus"
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
_ABOUT_WHO_WE_ARE = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_BUSY = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "KMS.ThrottlingException",
        "KMSThrottling",
        "OverLimit",
        "RequestThrottled",
        "ServiceUnavailable",
        "Throttled",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError"})
_MISSING_QUEUE = frozenset({"NonExistentQueue", "QueueDoesNotExist"})
# The receipt is too old, or the message is gone: it was received again, deleted, or became visible.
_STALE = frozenset(
    {
        "InvalidIdFormat",
        "InvalidParameterValue",
        "InvalidParameterValueException",  # as LocalStack writes it
        "MessageNotInflight",
        "ReceiptHandleIsInvalid",
    }
)


class QueueMissing(Unavailable):
    """The queue does not exist. It may be made again."""


class TopicMissing(Unavailable):
    """The topic does not exist. It may be made again."""


def code_of(error: BaseException | None) -> str:
    """Return the service's code for the error without its prefix, or nothing when it was not said."""
    if not isinstance(error, ClientError):
        return ""
    return short_code(str(error.response.get("Error", {}).get("Code", "")))


def short_code(code: str) -> str:
    """Return the code without `AWS.SimpleQueueService.`, which not every server writes."""
    return code.rpartition(".")[2] if code.startswith("AWS.") else code


def is_stale(code: str) -> bool:
    """Say whether the code tells that a delivery is no longer ours."""
    return short_code(code) in _STALE


def was_answered(error: BaseException) -> bool:
    """Say whether AWS is there and knows who we are, whatever it said about the request."""
    if not isinstance(error, ClientError):
        return False
    code, status = code_of(error), _status_of(error)
    return code not in _BUSY | _ABOUT_WHO_WE_ARE and status < 500 and status != 429


def told_aws(doing: str, error: BaseException) -> SpoolError:
    """Return our error for what happened while `doing` something."""
    if isinstance(error, _NO_CREDENTIALS):
        return Unavailable(f"AWS cannot {doing}: there are no credentials for it", hint=_CREDENTIALS)
    if not isinstance(error, ClientError):
        return Unavailable(f"AWS does not answer to {doing}: {type(error).__name__}", hint=_ADDRESS)
    return _answered(doing, code_of(error) or str(_status_of(error)))


def _answered(doing: str, code: str) -> SpoolError:
    says = f"AWS answers {code} to {doing}"
    if code in _MISSING_QUEUE:
        return QueueMissing(says, hint=DECLARE)
    if code in {"NotFound", "NotFoundException"}:
        return TopicMissing(says, hint=DECLARE)
    if code in _ABOUT_WHO_WE_ARE:
        return Unavailable(says, hint=_CREDENTIALS)
    if code in _DENIED:
        return Unavailable(says, hint="docs/reference/transports.md lists the permissions that Spool needs")
    return Unavailable(says)


def _status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
