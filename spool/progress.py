"""Show on standard error how far something is: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from shared.media.port import Progress as Report

LINE_EVERY_S = 1.0  # a log is read later: one line a second says enough


@contextmanager
def shown_progress(title: str, *, stream: TextIO | None = None) -> Iterator[Report]:
    """Yield what to call with (done, of); it may be called as often as there is something new."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _bar(title, stream) as report:
            yield report
    else:
        yield _Lines(title, stream)


@contextmanager
def _bar(title: str, stream: TextIO) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task(title, total=None)

        def report(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of)

        yield report


class _Lines:
    """Prints `cutting: 40 %`, at most once a second, and always the end."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream
        self._percent = -1
        self._next_s = time.monotonic() + LINE_EVERY_S

    def __call__(self, done: int, of: int) -> None:
        percent = 100 * done // of if of > 0 else 100
        if percent <= self._percent or (percent < 100 and time.monotonic() < self._next_s):
            return
        self._percent = percent
        self._next_s = time.monotonic() + LINE_EVERY_S
        self._stream.write(f"{self._title}: {percent} %\n")
        self._stream.flush()
