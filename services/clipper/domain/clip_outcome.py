"""Decide what is said about a request: which answer, and whether it is a new one or the last one again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from services.clipper.domain.clip_request import Refusal, digest_of
from shared.events.clip import (
    CONFLICTING,
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipOutcome,
    ClipRefused,
    ClipRequested,
)
from shared.events.fields import WireRange
from shared.kernel.timeline import TimeRange

Outcome = TypeVar("Outcome", bound=ClipOutcome)

# Where a clip is: asked for, being made, or ended in one of four ways.
Status = Literal["requested", "working", "available", "not_available", "refused", "failed"]

# What a clip's status is called when it has ended; the keys are what was announced.
STATUS_OF: dict[type[ClipOutcome], Status] = {
    ClipAvailable: "available",
    ClipNotAvailable: "not_available",
    ClipRefused: "refused",
    ClipFailed: "failed",
}
OUTCOME_OF = {outcome.type: outcome for outcome in STATUS_OF}


def refused(request: ClipRequested, refusal: Refusal) -> ClipRefused:
    return ClipRefused(
        **_asked(request),
        reason=refusal.reason,
        field=refusal.field,
        message=refusal.message,
        request_digest=digest_of(request),
    )


def conflicting_duplicate(request: ClipRequested) -> ClipRefused:
    """Refuse a request whose id already names another one."""
    message = "another camera, range or precision was asked for under this id before; use a new id"
    return refused(request, Refusal(CONFLICTING, "clipId", message))


def not_available(request: ClipRequested, missing: Iterable[TimeRange]) -> ClipNotAvailable:
    return ClipNotAvailable(**_asked(request), missing=tuple(map(WireRange.of, missing)))


def failed(
    request: ClipRequested, *, reason: str, fault: str, advice: str, source_key: str | None = None
) -> ClipFailed:
    return ClipFailed(**_asked(request), reason=reason, fault=fault, next=advice, source_key=source_key)


def said_before(last_type: str | None, last_result: bytes | None) -> ClipOutcome | None:
    """Read the answer that a request had last, exactly as it was announced."""
    if last_type is None or last_result is None:
        return None
    return OUTCOME_OF[last_type].model_validate_json(last_result)


def revised(outcome: Outcome, before: ClipOutcome | None) -> Outcome:
    """Give the outcome its number: the same answer keeps it, and so its event id; a new one counts up."""
    if before is None:
        return outcome
    same_again = outcome.model_copy(update={"revision": before.revision})
    return (
        same_again if same_again == before else outcome.model_copy(update={"revision": before.revision + 1})
    )


def _asked(request: ClipRequested) -> dict[str, Any]:
    return {
        "clip_id": request.clip_id,
        "camera_id": request.camera_id,
        "start_timestamp_in_ms": request.start_timestamp_in_ms,
        "end_timestamp_in_ms": request.end_timestamp_in_ms,
        "precision": request.precision,
    }
