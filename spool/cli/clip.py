"""`spool clip`: cut a file or an object here and now, without a running Spool."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spool.cli.asynchronous import run_to_end
from spool.cli.failures import one_line
from spool.times import FORMS, clock_text, parse_time, size_text

if TYPE_CHECKING:
    from shared.media.port import ClipFile

START = typer.Option("--from", metavar="TIME", help=f"Where the clip starts: {FORMS}. (default: the start)")
END = typer.Option("--to", metavar="TIME", help="Where it ends, not included. (default: the end)")


def clip(
    *,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A file, or s3://bucket/key?endpoint=….", show_default=False),
    ],
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="OUT", help="A file, or s3://bucket/key.", show_default=False),
    ],
    start: Annotated[str | None, START] = None,
    end: Annotated[str | None, END] = None,
    thumbnail: Annotated[
        Path | None,
        typer.Option("--thumbnail", metavar="FILE", help="Write a picture of the clip as JPEG, too."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="HOW",
            help="edit-list: pictures before the start stay in the file, hidden; smart: the ends are encoded"
            " anew, nothing is hidden; keyframe: widened to key frames.",
        ),
    ] = "edit-list",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Cut a range out of a recording, exact to the frame.

    H.264, HEVC and AAC in MP4 are not encoded anew, and of the source only the range is read.
    """
    start_ms = _milliseconds(start, "--from") or 0
    end_ms = _milliseconds(end, "--to")

    from shared.media.port import Precision
    from spool.clip_file import Order, clip_file
    from spool.place import read_place
    from spool.progress import shown_progress

    if precision not in tuple(Precision):
        raise typer.BadParameter(f"is one of {', '.join(Precision)}", param_hint="--precision")
    places = read_place(source), read_place(output)
    order = Order(*places, start_ms, end_ms, thumbnail, force, Precision(precision))
    began_s = time.monotonic()
    with shown_progress("cutting") as progress:
        made = run_to_end(clip_file(order, progress=progress))
    typer.echo(summary(str(order.output), made, time.monotonic() - began_s))


def summary(name: str, made: ClipFile, seconds: float) -> str:
    """Say in one line what was made, and at what cost."""
    size_bytes = made.stored.size_bytes
    read = f"read {size_text(made.source_bytes_read)} for a clip of {size_text(size_bytes)}"
    shown = f"{made.video_frames} frames" if made.width else "sound only"
    return one_line(f"{name}: {shown}, {clock_text(made.duration_ms)}, {read}, {seconds:.2f} s, {_how(made)}")


def _how(made: ClipFile) -> str:
    if made.reencoded_because is not None:
        return f"re-encoded because {made.reencoded_because}"
    if made.earlier_ms or made.later_ms:
        return f"lossless, {made.earlier_ms} ms earlier and {made.later_ms} ms later than asked for"
    if made.reencoded_ms:
        ends_ms = sum(end_ms - start_ms for start_ms, end_ms in made.reencoded_ms)
        return f"lossless but for {ends_ms} ms at its ends"
    return "lossless"


def _milliseconds(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
