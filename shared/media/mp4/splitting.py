"""Split the pictures of a cut into those that are copied and those at its ends that are encoded anew. Pure.

A cut that begins between key frames needs pictures that it does not show, and one that ends between them may.
Where none may be hidden in the file, the pictures of those groups are encoded anew, and only the wanted ones.
What is encoded anew starts with a key frame and has no picture out of order. Its times to decode are those to
show, earlier by what the copied pictures beside it are reordered: so they stay in order across the joint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shared.media.mp4.boxes import Ints
from shared.media.mp4.selection import AFTER, BEFORE, Run
from shared.media.mp4.tables import SampleTable


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """Pictures to encode anew: `count` of those that samples [first, stop) show, from the `skipped`-th on."""

    run: Run  # what it is a part of
    part: int  # BEFORE or AFTER what is copied
    first: int
    stop: int
    skipped: int
    shown: Ints
    early_ticks: int  # from showing to decoding, as in what is copied beside it
    ticks_after_last: int

    @property
    def count(self) -> int:
        return len(self.shown)

    def encoded(self, samples: tuple[bytes, ...]) -> Run:
        """Return the run of these pictures, once they are encoded."""
        sizes = np.array([len(sample) for sample in samples], np.int64)
        decode = self.shown - self.early_ticks
        table = SampleTable(
            decode_ticks=decode,
            composition_ticks=np.full(self.count, self.early_ticks, np.int32),
            sizes=sizes.astype(np.uint32),
            offsets=np.cumsum(sizes) - sizes,
            sync=np.zeros(1, np.int64),
            last_ticks=self.ticks_after_last,
        )
        return Run(
            piece=self.run.piece,
            table=table,
            first=0,
            stop=self.count,
            start=self.run.start,
            end=self.run.end,
            decode=decode,
            shown=self.shown,
            ticks_after_last=self.ticks_after_last,
            part=self.part,
            held=b"".join(samples),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The pictures of one cut, in order. At least one of the three is there."""

    before: Boundary | None
    copied: Run | None
    after: Boundary | None


def hidden_lead(run: Run) -> bool:
    """Say whether a run has pictures that are shown before its cut."""
    return bool((run.shown < run.start).any())


def first_late(run: Run, sample: int) -> int | None:
    """Return the first sample from `sample` on that is shown after the cut; None when there is none."""
    late = np.flatnonzero(run.shown[sample - run.first :] >= run.end)
    return sample + int(late[0]) if len(late) else None


def split(run: Run, copied_first: int | None, copied_stop: int | None) -> Split:
    """Copy samples [copied_first, copied_stop), each of them shown in the cut; encode what is left anew.

    Both are key frames that need nothing before them. None: there is nothing to copy before or after all.
    """
    if copied_first is None or (copied_stop is not None and copied_stop <= copied_first):
        return Split(
            _boundary(run, BEFORE, run.first, run.stop, early_ticks=_early(run, run.first)), None, None
        )
    stop = run.stop if copied_stop is None else copied_stop
    before = after = None
    if copied_first > run.first:
        before = _boundary(run, BEFORE, run.first, copied_first, early_ticks=_early(run, copied_first))
    if stop < run.stop:
        after = _boundary(run, AFTER, stop, run.stop, early_ticks=_early(run, stop))
    return Split(before, _part(run, copied_first, stop), after)


def _early(run: Run, sample: int) -> int:
    at = sample - run.first
    return int(run.shown[at] - run.decode[at])


def _boundary(run: Run, part: int, first: int, stop: int, *, early_ticks: int) -> Boundary:
    shown = np.sort(run.shown[first - run.first : stop - run.first])
    wanted = shown[(shown >= run.start) & (shown < run.end)]
    next_shown = run.end if stop == run.stop else int(run.shown[stop - run.first])
    return Boundary(
        run=run,
        part=part,
        first=first,
        stop=stop,
        skipped=int(np.searchsorted(shown, wanted[0], "left")),
        shown=wanted,
        early_ticks=early_ticks,
        ticks_after_last=max(1, next_shown - int(wanted[-1])),
    )


def _part(run: Run, first: int, stop: int) -> Run:
    chosen = slice(first - run.first, stop - run.first)
    after = run.ticks_after_last
    if stop < run.stop:
        after = int(run.decode[chosen.stop]) - int(run.decode[chosen.stop - 1])
    return replace(
        run,
        first=first,
        stop=stop,
        decode=run.decode[chosen],
        shown=run.shown[chosen],
        ticks_after_last=after,
    )
