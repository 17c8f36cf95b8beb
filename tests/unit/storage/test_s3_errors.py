"""What an S3 server says, told as our errors: whose fault it is decides what becomes of the work."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from shared.kernel.errors import Conflict, NotFound, Refused, SpoolError, Unavailable
from shared.storage.s3_bucket import is_passing
from shared.storage.s3_errors import NotLetIn, UploadGone, told_s3


def answered(code: str, status: int) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": "AKIA-SECRET"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "GetObject")  # type: ignore[arg-type]  # the parts of an answer that are read


@pytest.mark.parametrize(
    ("code", "status", "kind", "hint"),
    [
        pytest.param("InvalidAccessKeyId", 403, NotLetIn, "AWS_ACCESS_KEY_ID", id="unknown-key"),
        pytest.param("SignatureDoesNotMatch", 403, NotLetIn, "AWS_SECRET_ACCESS_KEY", id="wrong-secret"),
        pytest.param("ExpiredToken", 400, NotLetIn, "run out", id="session-ended"),
        pytest.param("InvalidToken", 400, NotLetIn, "AWS_ACCESS_KEY_ID", id="token-of-another-key"),
        pytest.param("TokenRefreshRequired", 400, NotLetIn, "AWS_ACCESS_KEY_ID", id="token-to-be-renewed"),
        pytest.param("AuthorizationHeaderMalformed", 400, NotLetIn, "credentials", id="wrong-region"),
        pytest.param("RequestTimeTooSkewed", 403, NotLetIn, "clock", id="wrong-clock"),
        pytest.param("AccessDenied", 403, NotLetIn, "list the bucket", id="not-allowed"),
        pytest.param("403", 403, NotLetIn, "list the bucket", id="not-allowed-to-head"),
        pytest.param("403", 403, NotLetIn, "AWS_ACCESS_KEY_ID", id="unknown-to-head"),
        pytest.param("SlowDown", 503, Unavailable, None, id="busy"),
        pytest.param("InternalError", 500, Unavailable, None, id="broken"),
        pytest.param("NoSuchBucket", 404, Unavailable, "make the bucket", id="no-bucket"),
        pytest.param("NoSuchUpload", 404, UploadGone, None, id="aborted"),
        pytest.param("NoSuchKey", 404, NotFound, None, id="no-object"),
        pytest.param("PreconditionFailed", 412, Conflict, None, id="another-object"),
        pytest.param("InvalidObjectState", 403, Refused, "restore it", id="archived"),
        pytest.param("NotImplemented", 501, Refused, "storage check", id="not-built-in"),
        pytest.param("InvalidStorageClass", 400, Refused, "leave the option", id="no-such-class"),
        pytest.param("ObjectParentIsFile", 409, Refused, "another name", id="below-an-object"),
        pytest.param("501", 501, Refused, "storage check", id="not-built-in-to-head"),
        pytest.param("InvalidRange", 416, Refused, None, id="our-fault"),
    ],
)
def test_an_answer_is_told_by_whose_fault_it_is(
    code: str, status: int, kind: type[SpoolError], hint: str | None
) -> None:
    told = told_s3("a/key", answered(code, status))

    assert type(told) is kind
    assert (told.hint is None) == (hint is None)
    assert hint is None or hint in str(told)
    assert "AKIA-SECRET" not in str(told)


def test_what_a_person_has_to_mend_is_waited_for_but_not_asked_for_again_at_once() -> None:
    missing = told_s3("a/key", NoCredentialsError())

    assert type(missing) is NotLetIn
    assert not is_passing(missing)
    assert is_passing(told_s3("a/key", answered("SlowDown", 503)))
