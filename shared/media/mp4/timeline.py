"""Place the samples of several pieces on one media timeline, and say by edits what of it is shown. Pure.

Many players look at few edits of a track only, so there are as few as possible: one that shows nothing until
the first picture is due, and one for all pieces that join without anything hidden in between. Every piece
starts exactly where the pieces before it end on the clock, whatever their samples add up to, so no error
grows along the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.media.mp4.boxes import Ints
from shared.media.mp4.selection import CannotCopy, Run
from shared.media.mp4.tracks import Edit, Track
from shared.media.ticks import TICKS_PER_MS, TICKS_PER_S

# Sound may be this far from its picture after a joint: half an AAC frame at 48 kHz is 10.7 ms, and frames
# that follow one another without a break sound better than exact ones.
JOINT_TOLERANCE_MS = 11


@dataclass(frozen=True, slots=True, eq=False)
class TrackPlan:
    """A track of the clip: its samples in decode order, with their times in ticks of `timescale`."""

    track: Track  # whose settings it has
    timescale: int
    runs: tuple[Run, ...]  # one after another they are the track's samples
    decode: Ints
    shown: Ints
    last_ticks: int
    edits: tuple[Edit, ...]  # durations are ticks of the clip's clock

    def __len__(self) -> int:
        return len(self.decode)

    @property
    def sizes(self) -> Ints:
        return np.concatenate([run.sizes for run in self.runs])

    @property
    def sync(self) -> Ints:
        """The samples that can be decoded alone."""
        starts = np.cumsum([0, *(len(run) for run in self.runs[:-1])])
        return np.concatenate([run.sync + start for run, start in zip(self.runs, starts, strict=True)])

    @property
    def visible(self) -> int:
        return sum(run.visible for run in self.runs)


def place_video(
    track: Track, timescale: int, pieces: Sequence[Sequence[Run]], durations_ms: Sequence[int]
) -> TrackPlan:
    """Place the pictures of each piece, whose runs follow one another on its source's own line.

    A piece without any holds the last picture. Raises CannotCopy.
    """
    line = _VideoLine(timescale)
    for runs, duration_ms in zip(pieces, durations_ms, strict=True):
        line.add(runs, duration_ms)
    return line.plan(track)


class _VideoLine:
    """The media timeline of the pictures, while it is laid out."""

    def __init__(self, timescale: int) -> None:
        self._timescale = timescale
        self._runs: list[Run] = []
        self._decode: list[Ints] = []
        self._shown: list[Ints] = []
        self._empty_ticks = 0  # of the movie: at the start, before the first picture
        self._edits: list[Edit] = []
        self._edit_end = 0  # where the last edit ends on the media timeline
        self._hidden_end = 0  # after everything placed so far that must not be shown again

    def add(self, runs: Sequence[Run], duration_ms: int) -> None:
        if not runs:
            self._hold(duration_ms)
            return
        start, end = runs[0].start, runs[0].end
        if not self._runs:
            self._start(runs, duration_ms)
        elif self._joins(runs):
            self._place(runs, self._edit_end - start)
            self._lengthen(duration_ms)
        else:
            shift = self._shift_behind(runs)
            self._place(runs, shift)
            self._edits.append(Edit(duration_ms * TICKS_PER_MS, start + shift))
            self._edit_end = end + shift
        self._hidden_end = max(self._edit_end, *(int(shown.max()) + 1 for shown in self._shown[-len(runs) :]))

    def _hold(self, duration_ms: int) -> None:
        if not self._edits:
            self._empty_ticks += duration_ms * TICKS_PER_MS
            return
        before = self._edit_end
        self._lengthen(duration_ms)
        if any(((shown >= before) & (shown < self._edit_end)).any() for shown in self._shown):
            raise CannotCopy("a cut without a picture of its own follows pictures that have to stay hidden")
        self._hidden_end = max(self._hidden_end, self._edit_end)

    def _lengthen(self, duration_ms: int) -> None:
        last = self._edits[-1]
        self._edits[-1] = Edit(last.duration_ticks + duration_ms * TICKS_PER_MS, last.media_ticks)
        self._edit_end += duration_ms * self._timescale // 1000

    def _start(self, runs: Sequence[Run], duration_ms: int) -> None:
        """Place the first pictures where the media starts.

        Where the cut begins between two pictures, an edit shows nothing up to the first: without it, players
        begin with that picture at once, and all of them come earlier than the sound.
        """
        start, end = runs[0].start, runs[0].end
        first = min(int(run.shown[run.shown >= start].min(initial=end)) for run in runs)
        empty = (first - start) * TICKS_PER_S // self._timescale
        shown_from = start + empty * self._timescale // TICKS_PER_S
        shift = max(-int(runs[0].decode[0]), -shown_from)
        self._place(runs, shift)
        self._decode[0][0] = 0
        self._empty_ticks += empty
        self._edits.append(Edit(duration_ms * TICKS_PER_MS - empty, shown_from + shift))
        self._edit_end = end + shift

    def _joins(self, runs: Sequence[Run]) -> bool:
        """Tell whether a piece can follow with nothing hidden: no lead of its own, no tail before it."""
        shift = self._edit_end - runs[0].start
        lead = any((run.shown < run.start).any() for run in runs)
        tail = self._hidden_end > self._edit_end
        return not lead and not tail and int(runs[0].decode[0]) + shift > int(self._decode[-1][-1])

    def _shift_behind(self, runs: Sequence[Run]) -> int:
        """Return the shift that puts a whole piece, hidden pictures included, behind all that is there."""
        decode_from = int(self._decode[-1][-1]) + self._runs[-1].ticks_after_last
        # The edit starts with the cut, which may be before the first picture.
        first = min(runs[0].start, *(int(run.shown.min()) for run in runs))
        return max(decode_from - int(runs[0].decode[0]), self._hidden_end - first)

    def _place(self, runs: Sequence[Run], shift: int) -> None:
        for run in runs:
            self._runs.append(run)
            self._decode.append(run.decode + shift)
            self._shown.append(run.shown + shift)

    def plan(self, track: Track) -> TrackPlan:
        if not self._runs:
            raise CannotCopy("no picture is shown in the cuts")
        leading = (Edit(self._empty_ticks, None),) if self._empty_ticks else ()
        return TrackPlan(
            track=track,
            timescale=self._timescale,
            runs=tuple(self._runs),
            decode=np.concatenate(self._decode),
            shown=np.concatenate(self._shown),
            last_ticks=self._runs[-1].ticks_after_last,
            edits=(*leading, *self._edits),
        )


def place_audio(track: Track, runs: Sequence[Run | None], durations_ms: Sequence[int]) -> TrackPlan | None:
    """Place the sound of each piece in one edit. Where a piece has none, there is a gap in the timeline."""
    line, elapsed_ms = _AudioLine(track.timescale), 0
    for run, duration_ms in zip(runs, durations_ms, strict=True):
        if run is not None:
            is_last = elapsed_ms + duration_ms == sum(durations_ms)
            line.add(run, elapsed_ms, None if is_last else elapsed_ms + duration_ms)
        elapsed_ms += duration_ms
    return line.plan(track, elapsed_ms)


class _AudioLine:
    """The media timeline of the sound, while it is laid out."""

    def __init__(self, timescale: int) -> None:
        self._timescale = timescale
        self._runs: list[Run] = []
        self._decode: list[Ints] = []
        self._zero = 0  # where the clip's first millisecond lies; negative when the sound comes later
        self._end = 0  # where the next frame would follow without a break

    def add(self, run: Run, elapsed_ms: int, joint_ms: int | None) -> None:
        """Add the sound that starts `elapsed_ms` into the clip; at `joint_ms` another piece follows."""
        if not self._runs:
            self._zero = run.start - int(run.decode[0]) - self._ticks(elapsed_ms)
            first, shift = 0, -int(run.decode[0])
        else:
            first, shift = self._follow(run, elapsed_ms)
        stop = len(run)
        if joint_ms is not None:
            # The frame that straddles the joint belongs to the side that has more of it.
            middles = (
                run.decode + shift + np.diff(run.decode, append=run.decode[-1] + run.ticks_after_last) // 2
            )
            stop = int(np.searchsorted(middles, self._zero + self._ticks(joint_ms), "right"))
        if stop > first:
            self._append(run, first, stop, shift)

    def _follow(self, run: Run, elapsed_ms: int) -> tuple[int, int]:
        """Return the first frame of a piece that follows, and the shift that puts it in its place."""
        exact = self._zero + self._ticks(elapsed_ms) - run.start
        half = run.ticks_after_last // 2
        earliest = max(self._end, exact + run.start) - half
        first = int(np.searchsorted(run.decode + exact, earliest, "left"))
        if first >= len(run):
            return first, exact
        off = self._end - (int(run.decode[first]) + exact)
        tolerance = self._timescale * JOINT_TOLERANCE_MS // 1000
        return first, exact + off if abs(off) <= tolerance else exact

    def _append(self, run: Run, first: int, stop: int, shift: int) -> None:
        chosen = run.decode[first:stop] + shift
        after = int(run.decode[stop] - run.decode[stop - 1]) if stop < len(run) else run.ticks_after_last
        self._runs.append(
            Run(
                piece=run.piece,
                table=run.table,
                first=run.first + first,
                stop=run.first + stop,
                start=run.start,
                end=run.end,
                decode=run.decode[first:stop],
                shown=run.decode[first:stop],
                ticks_after_last=after,
            )
        )
        self._decode.append(chosen)
        self._end = int(chosen[-1]) + after

    def _ticks(self, duration_ms: int) -> int:
        return round(duration_ms * self._timescale / 1000)

    def plan(self, track: Track, duration_ms: int) -> TrackPlan | None:
        if not self._runs:
            return None
        late = max(0, -(self._zero * TICKS_PER_S // self._timescale))
        if late >= duration_ms * TICKS_PER_MS:
            return None
        leading = (Edit(late, None),) if late else ()
        heard_from = max(0, self._zero + late * self._timescale // TICKS_PER_S)
        heard = Edit(duration_ms * TICKS_PER_MS - late, heard_from)
        decode = np.concatenate(self._decode)
        return TrackPlan(
            track=track,
            timescale=self._timescale,
            runs=tuple(self._runs),
            decode=decode,
            shown=decode,
            last_ticks=self._runs[-1].ticks_after_last,
            edits=(*leading, heard),
        )
