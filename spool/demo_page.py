"""What the demo says, on one screen: the road of a clip from two recordings to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from shared.kernel.timeline import iso_utc
from spool.footage import Footage
from spool.proof import Check
from spool.times import size_text

RULER_COLUMNS = 56  # of a screen of 80, after the label
LABEL_COLUMNS = 11


class DemoPage:
    """Prints one paragraph after another, as things happen."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        self._console = console

    def begin(self, directory: Path, file: Path | None) -> None:
        what = (
            f"one clip out of the middle of {file}"
            if file
            else "two recordings of one camera, one clip across their joint"
        )
        self._console.print(Text(f"Spool demo: {what}", style="bold"))
        self._console.print(f"All of Spool in this process, its data in {directory}/")
        self._console.print()

    def show_footage(self, footage: Footage) -> None:
        """Draw the sources and the range that is asked for, to scale."""
        for label, line in zip(("recorded", "asked for"), ruler(footage), strict=True):
            self._line(label, line)
        wanted = footage.wanted
        self._line("", f"{footage.camera_id}, {iso_utc(wanted.start_ms)} + {wanted.duration_ms / 1000:.3f} s")
        self._console.print()

    def show_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        widest = max(len(str(event["type"])) for event in events)
        for number, event in enumerate(events):
            self._line("happened" if number == 0 else "", f"{event['type']:<{widest}}  {event['id']}")
        self._console.print()

    def show_refusal(self, outcome: Mapping[str, Any]) -> None:
        """Say that there is no clip, and why not, in the words of the event."""
        told = outcome["data"]
        reason = told.get("message") or told.get("reason") or told.get("missing") or "without a reason"
        self._line("Failed", f"{outcome['type']}: {reason}", style="bold red")

    def show_cost(self, told: Mapping[str, Any], seconds: float) -> None:
        """Compare what was read with what was made."""
        clip = told["clip"]
        read, made = told["sourceBytesRead"], clip["sizeBytes"]
        because = clip.get("reencodedBecause")
        self._line(
            "cost", f"read {size_text(read)} for a clip of {size_text(made)}: {read / made:.2f} bytes for one"
        )
        self._line("", f"{seconds:.2f} s from the request to the answer")
        self._line(
            "",
            f"re-encoded, because {because}"
            if because
            else "nothing encoded anew: the samples are the source's",
        )
        self._console.print()

    def show_checks(self, checks: Sequence[Check]) -> None:
        for number, check in enumerate(checks):
            mark, style = ("✓", "green") if check.passed else ("✗", "bold red")
            text = Text.assemble((f"{mark} ", style), (check.text, "" if check.passed else style))
            self._line("checked" if number == 0 else "", text)
        self._console.print()

    def show_files(self, clip: Path, thumbnails: Sequence[Path]) -> None:
        self._line("clip", str(clip))
        for number, path in enumerate(thumbnails):
            self._line("thumbnails" if number == 0 else "", str(path))
        self._console.print()

    def end(self, checks: Sequence[Check]) -> bool:
        """Say how it ended and return whether every check passed."""
        failed = [check for check in checks if not check.passed]
        if failed:
            self._console.print(Text(f"Failed: {len(failed)} of {len(checks)} checks.", style="bold red"))
        else:
            self._console.print(
                Text(f"Done: {len(checks)} of {len(checks)} checks passed.", style="bold green")
            )
        return not failed

    def _line(self, label: str, text: str | Text, *, style: str = "dim") -> None:
        self._console.print(Text.assemble((f"  {label:<{LABEL_COLUMNS}}", style), text))


def ruler(footage: Footage) -> tuple[str, str]:
    """Return two lines of equal length: where the sources lie in time, and where the wanted range does."""
    start_ms = footage.sources[0].span.start_ms
    whole_ms = footage.sources[-1].span.end_ms - start_ms

    def column(moment_ms: int) -> int:
        return (moment_ms - start_ms) * (RULER_COLUMNS - 1) // whole_ms

    recorded = ["─"] * RULER_COLUMNS
    for source in footage.sources:
        recorded[column(source.span.start_ms)] = "├" if source is footage.sources[0] else "┼"
    recorded[-1] = "┤"

    asked = [" "] * RULER_COLUMNS
    first, last = column(footage.wanted.start_ms), column(footage.wanted.end_ms)
    asked[first : last + 1] = "━" * (last + 1 - first)
    return "".join(recorded), "".join(asked)
