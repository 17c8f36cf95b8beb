"""Bytes become a JSON object: UTF-8, of bounded size and depth, in double quotes or in single ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from shared.events.single_quotes import to_json
from shared.events.unreadable import FieldProblem, Unreadable

MAX_EVENT_BYTES = 256 * 1024  # what SNS carries; the smallest of the transports
MAX_DEPTH = 32  # of nested JSON: the deepest event has four levels


def parse(body: bytes) -> dict[str, Any]:
    """Read an object out of JSON, or of the same with single quotes. Raises Unreadable.

    Python reads more than JSON allows to be passed on: `check_plain` before any of it is written again.
    """
    if len(body) > MAX_EVENT_BYTES:
        raise _unreadable_body(f"is {len(body)} bytes long; an event has at most {MAX_EVENT_BYTES}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _unreadable_body("is not UTF-8") from error
    try:
        parsed = _load(text)
    except RecursionError as error:
        raise _unreadable_body(f"is nested more than {MAX_DEPTH} levels deep") from error
    if not isinstance(parsed, dict):
        raise _unreadable_body(f"is a {type(parsed).__name__}, not an object")
    return parsed


def check_plain(parsed: Mapping[str, Any]) -> None:
    """Raise Unreadable for what cannot be written everywhere: `NaN`, half a surrogate pair, any depth."""
    if wrong := _not_plain(parsed):
        raise _unreadable_body(wrong)


def _load(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        not_json = error
    try:
        return json.loads(to_json(text))
    except ValueError as error:
        # Which of the two was meant is not known, and the advice of each is wrong for the other.
        nor = f"; read with single quotes: {error}" if "'" in text else ""
        raise _unreadable_body(f"is not JSON: {not_json}{nor}") from not_json


def _not_plain(parsed: Mapping[str, Any]) -> str | None:
    """Say what keeps a JSON object from being written again everywhere, or None."""
    open_values: list[tuple[object, int]] = [(parsed, 1)]
    while open_values:
        value, depth = open_values.pop()
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} levels deep"
        # The commonest first: every event comes through here.
        if isinstance(value, str):
            if not _is_unicode(value):
                return "has half of a surrogate pair, which is no Unicode"
        elif isinstance(value, dict):
            open_values.extend((key, depth) for key in value if not key.isascii())
            open_values.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            open_values.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, float) and not math.isfinite(value):
            return "has a number that JSON cannot write"
    return None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _unreadable_body(message: str) -> Unreadable:
    return Unreadable((FieldProblem("body", message),))
