"""Rows of the API in words: where a piece of work stands, and how long ago something was. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from spool.cli.failures import visible
from spool.times import span_text


def ago(moment: object, now: datetime) -> str:
    """Say how long ago a moment of the API was: `3 min ago`; `-` for none."""
    since = _since(moment, now)
    if since is None:
        return "-"
    return f"{span_text(since)} ago" if since >= timedelta() else f"in {span_text(-since)}"


def short(text: object, characters: int = 120) -> str:
    """Return the beginning of a text, for a list; what is shown alone is shown whole."""
    said = "-" if text is None else str(text)
    return said if len(said) <= characters else said[: characters - 1] + "…"


def stand(work: Mapping[str, Any], now: datetime) -> str:
    """Say where a piece of work stands, since when, what went wrong, and when it goes on."""
    match work.get("state"):
        case "working":
            return _working(work, now)
        case "ready":
            return _ready(work, now)
        case "done":
            return f"done {ago(work.get('doneAt'), now)}: {work.get('outcome') or 'nothing to tell'}"
        case "dead":
            return (
                f"{work.get('outcome') or 'dead'} {ago(work.get('doneAt'), now)}: {work.get('reason') or '-'}"
            )
    return str(work.get("state"))


def with_ages(item: Mapping[str, Any], moments: Collection[str], now: datetime) -> dict[str, Any]:
    """Add to each of the moments how long ago it was."""
    return {
        name: f"{value} ({ago(value, now)})" if name in moments and value else value
        for name, value in item.items()
    }


def _working(work: Mapping[str, Any], now: datetime) -> str:
    since = _since(work.get("claimedAt"), now)
    words = [f"being done for {span_text(since)}" if since is not None else "being done"]
    if work.get("progress"):
        words.append(str(work["progress"]))
    words.append(f"by {work.get('worker') or 'nobody'}")
    overdue = _since(work.get("leaseUntil"), now)
    if overdue is not None and overdue > timedelta():
        words.append(f"its lease ran out {span_text(overdue)} ago: it is taken over soon")
    if work.get("cancelRequested"):
        words.append("being cancelled")
    if work.get("failingSince"):
        words.append(f"failing since {ago(work['failingSince'], now)}, last: {work.get('reason') or '-'}")
    return ", ".join(words)


def _ready(work: Mapping[str, Any], now: datetime) -> str:
    if work.get("cancelRequested"):
        return "being cancelled"
    next_at = ago(work["nextAt"], now) if work.get("nextAt") else None
    if next_at and next_at.endswith(" ago"):
        next_at = "now"
    if work.get("waiting"):
        keys = ", ".join(map(str, work.get("wakeKeys") or ()))
        when = [f"again {next_at}"] if next_at else []
        when += [f"or when {keys} comes"] if keys else []
        return f"waits: {work.get('reason') or '-'}; {' '.join(when) or 'for a wake'}"
    if work.get("failingSince"):
        again = f"again {next_at or 'now'}"
        return f"failed, {again}; failing since {ago(work['failingSince'], now)}: {work.get('reason') or '-'}"
    return f"ready for {span_text(since)}" if (since := _since(work.get("receivedAt"), now)) else "ready"


def _since(moment: object, now: datetime) -> timedelta | None:
    if not isinstance(moment, str):
        return None
    try:
        return now - datetime.fromisoformat(moment)
    except (ValueError, TypeError):
        return None


def pretty(body: object) -> str:
    """Return a body as a person reads it: JSON on many lines, other text without control characters."""
    if not isinstance(body, str):
        return "(not text; --raw writes its bytes)"
    try:
        return json.dumps(json.loads(body), indent=2)
    except ValueError:
        return "\n".join(visible(line) for line in body.splitlines())
