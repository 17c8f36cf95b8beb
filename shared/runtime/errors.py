"""Errors as HTTP answers: always `{error, message, details}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared.events.fields import Wire
from shared.events.unreadable import MAX_PROBLEMS, Unreadable, in_words
from shared.kernel.errors import Conflict, NotFound, Permanent, Refused, SpoolError, Transient

RETRY_AFTER_S = 5  # a dependency that restarts is back within seconds

NO_SUCH_FIELD = "there is no such field here; the API's description at /docs lists those that are"
_HTTP_ERRORS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class ErrorDetail(Wire):
    """One field of the request, and what is wrong with it."""

    field: str
    message: str


class ErrorAnswer(Wire):
    """Why a request was not carried out: a name for programs, a sentence for people, the fields to change."""

    error: str
    message: str
    details: tuple[ErrorDetail, ...] = ()


# Described by us: the phrases that Python has for a status differ from version to version.
ERROR_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        401: "No key, or a wrong one",
        404: "There is no such thing",
        409: "At odds with what there is",
        422: "Refused: `details` names the fields",
        503: "Something it needs is away; try again",
    }.items()
}


def error_answer(
    status: int,
    error: str,
    message: str,
    details: tuple[ErrorDetail, ...] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    answer = ErrorAnswer(error=error, message=message, details=details)
    return JSONResponse(answer.model_dump(by_alias=True), status_code=status, headers=headers)


def answer_errors(app: FastAPI) -> None:
    """Let every error of Spool, of FastAPI and of Starlette leave in the one form."""
    app.add_exception_handler(SpoolError, _answer_spool_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_bug)  # answered, and raised on: the server logs it


async def _answer_spool_error(_request: Request, error: Exception) -> JSONResponse:
    match error:
        case Unreadable():
            details = tuple(ErrorDetail(field=p.field, message=p.message) for p in error.problems)
            return error_answer(422, "invalid_event", str(error), details)
        case Refused():
            details = (ErrorDetail(field=error.field, message=error.message),) if error.field else ()
            said = f"{error.field}: {error}" if error.field else str(error)
            return error_answer(422, "refused", said, details)
        case NotFound():
            return error_answer(404, "not_found", str(error))
        case Conflict():
            return error_answer(409, "conflict", str(error))
        case Transient():
            return error_answer(503, "unavailable", str(error), headers={"retry-after": str(RETRY_AFTER_S)})
        case Permanent():
            return error_answer(422, "refused", str(error))
    raise error


async def _answer_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    details = tuple(_detail(found) for found in error.errors()[:MAX_PROBLEMS])
    said = "; ".join(f"{detail.field}: {detail.message}" for detail in details)
    return error_answer(422, "invalid_request", said, details)


async def _answer_http_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    name = _HTTP_ERRORS.get(error.status_code, "http_error")
    return error_answer(error.status_code, name, error.detail, headers=dict(error.headers or {}))


async def _answer_bug(_request: Request, _error: Exception) -> JSONResponse:
    """Say nothing of what happened: it is ours to know."""
    return error_answer(500, "internal", "something is wrong inside Spool; its log says what")


def _detail(found: Mapping[str, Any]) -> ErrorDetail:
    if found["type"] == "json_invalid":
        message = f"is not JSON: {found['ctx']['error']} at character {found['loc'][-1]}"
        return ErrorDetail(field="body", message=message)
    if found["type"] == "extra_forbidden":
        return ErrorDetail(field=_field(found["loc"]), message=NO_SUCH_FIELD)
    return ErrorDetail(field=_field(found["loc"]), message=in_words(found))


def _field(location: tuple[int | str, ...]) -> str:
    """Name a field as the caller wrote it: without FastAPI's `body` or `query` in front."""
    return ".".join(str(step) for step in location[1:]) or str(location[0])
