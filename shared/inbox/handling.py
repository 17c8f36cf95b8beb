"""One call of a handler: bounded in time, stopped when its claim is, told apart from every other ending."""

from __future__ import annotations

import asyncio
import hashlib
import traceback

from shared.events.reading import Letter, read_event
from shared.events.registry import Received
from shared.inbox.claims import Claim, Stop
from shared.inbox.outcome import Outcome
from shared.inbox.router import Route
from shared.inbox.row import ClaimedRow
from shared.kernel.errors import Bug, SpoolError, Transient, words_of


class Stopped(Exception):
    """The hand was told to stop. `why` says what becomes of the work."""

    def __init__(self, why: Stop) -> None:
        self.why = why
        super().__init__(why.value)


class TookTooLong(Transient):
    """The handler did not return within its time limit."""


def read_again(route: Route, row: ClaimedRow) -> Received:
    """Read the event that a row keeps. Raises Unreadable."""
    if row.body is None:
        raise Bug(f"unfinished work {row.id} has no body")
    headers = {"traceparent": row.traceparent} if row.traceparent else {}
    return read_event(Letter(row.body, row.event_id, headers), expected=row.type, bucket=route.bucket)


async def handle(route: Route, claim: Claim, received: Received) -> Outcome:
    """Return what the handler decides. Raises Stopped, also at its time limit, or what the handler raises.

    It is over when this returns or raises: a handler that is stopped is waited for, so that nothing
    of it works on without its claim.
    """
    if claim.stopped is not None:
        raise Stopped(claim.stopped)
    claim.begin()
    # Not `asyncio.timeout`, which costs as much as all else that is done here for a piece of work.
    limit = asyncio.get_running_loop().call_later(route.time_limit_s, claim.stop, Stop.TIME_LIMIT)
    try:
        return await route.handler(received.data, work=claim)
    except asyncio.CancelledError:
        if claim.end() > 0:  # not only the claim was stopped: the whole hand is
            raise
        if claim.stopped is None:
            raise Transient("something within the handler cancelled it") from None
        raise Stopped(claim.stopped) from None
    finally:
        limit.cancel()
        claim.end()


def reason_of(error: BaseException) -> str:
    """Say what went wrong, for the row and for a person."""
    if isinstance(error, SpoolError) or not str(error):
        return words_of(error)
    return f"{type(error).__name__}: {error}"


def digest_of(error: BaseException) -> str | None:
    """Return a short name for the place where a bug of ours showed, the same each time; None for no bug."""
    if isinstance(error, SpoolError) and not isinstance(error, Bug):
        return None
    places = [
        f"{frame.filename}:{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    return hashlib.sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:16]
