"""Tokens of the next page: opaque to callers, bounded and checked when they come back."""

from __future__ import annotations

import base64
import json

from shared.kernel.errors import Refused

MAX_TOKEN_CHARACTERS = 1_024


def page_token(position: list[int | str]) -> str:
    """Return the token that stands for the last item of a page."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def page_position(token: str | None, *, of: tuple[type[int | str], ...]) -> list[int | str] | None:
    """Return the position behind a token, its parts of the given types. Raises Refused for any other text."""
    if token is None:
        return None
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise _unknown_token()
    try:
        position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, RecursionError) as error:
        raise _unknown_token() from error
    if not isinstance(position, list) or tuple(type(part) for part in position) != of:
        raise _unknown_token()
    # Base64 skips what it does not know, so that many texts would stand for one position.
    if not all(_fits(part) for part in position) or page_token(position) != token:
        raise _unknown_token()
    return position


def _fits(part: int | str) -> bool:
    """Whether every database can compare with it: 64 bits, no control characters, valid Unicode."""
    return -(1 << 63) <= part < 1 << 63 if isinstance(part, int) else part.isprintable()


def _unknown_token() -> Refused:
    return Refused("is not a token of this listing", field="nextPageToken", hint="start without one")
