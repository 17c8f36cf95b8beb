"""Add up the packets of a source: when it starts, and what a cut of it holds. Pure."""

from __future__ import annotations

from fractions import Fraction

from shared.media.framecrc import Entry
from shared.media.port import Cut, SourceEndsEarly

# An audio encoder's run-up comes before the first picture where a container cannot say that it is not to be
# heard (MPEG-TS). More than this is sound that really starts earlier.
RUN_UP_S = Fraction(1, 10)
SHORT_TOLERANCE_S = Fraction(1, 10)  # a camera's last frame and its last AAC frame end when they end
LONGEST_FRAME_S = Fraction(1)  # a time-lapse camera's last frame lasts as long as its others, up to this


class Starts:
    """When the picture and the sound of a source start, of the packets seen so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()  # of which a packet was seen
        self._starts_s: dict[str, Fraction] = {}

    def take(self, entry: Entry) -> None:
        kind = entry.stream.kind
        self.kinds.add(kind)
        if entry.pts is not None and not entry.discarded:
            self._starts_s[kind] = min(self._starts_s.get(kind, entry.start_s), entry.start_s)

    @property
    def presentation_s(self) -> Fraction:
        """The start of what comes first; a run-up of the sound to the picture, or to zero, does not count."""
        first = min(self._starts_s.values(), default=Fraction(0))
        heard = self._starts_s.get("video", max(first, Fraction(0)))
        return heard if heard - first < RUN_UP_S else first


class Packets:
    """What the packets of a cut add up to."""

    def __init__(self, start_s: Fraction, end_s: Fraction) -> None:
        self._start_s, self._end_s = start_s, end_s
        self._ends_s: dict[str, Fraction] = {}
        self._last_decoded_s: dict[str, Fraction] = {}  # the decode time of each kind's last packet
        self._frame_s = Fraction(0)
        self.first_s: Fraction | None = None
        self.frames = 0
        self.pictures = False
        self.sound = False
        self.untimed = 0  # pictures that do not say when they are shown: the decoder finds out
        self.decodable = False  # a key frame comes at or before the start

    def take(self, entry: Entry) -> None:
        if entry.discarded:
            return
        kind, pts_s = entry.stream.kind, entry.start_s
        if kind == "video" and entry.pts is None:
            self.pictures = True
            self.untimed += 1
            return
        self.first_s = pts_s if self.first_s is None else min(self.first_s, pts_s)
        self._ends_s[kind] = max(self._ends_s.get(kind, entry.end_s), entry.end_s)
        self._last_decoded_s[kind] = entry.decoded_s
        if kind == "audio":
            self.sound = self.sound or entry.end_s > self._start_s
            return
        self.pictures = True
        self.decodable = self.decodable or (entry.key and pts_s <= self._start_s)
        self.frames += self._start_s <= pts_s < self._end_s
        self._frame_s = entry.duration * entry.stream.time_base

    def check_end(self, key: str, cut: Cut, source_start_s: Fraction) -> None:
        """Raise SourceEndsEarly when pictures, or sound where there are none, end before the cut."""
        kind = "video" if self.pictures else "audio"
        end_s = self._ends_s.get(kind, source_start_s)
        tolerance_s = max(SHORT_TOLERANCE_S, min(self._frame_s, LONGEST_FRAME_S))
        if end_s + tolerance_s >= self._end_s:
            return
        end_ms = int((end_s - source_start_s) * 1000)
        message = f"the source {key} ends early: at {end_ms} ms, the cut needs {cut.end_ms} ms"
        # Nobody says whether the last packet is there to its end, and pictures shown before it may be lost,
        # but none that is shown before it is decoded.
        whole_s = min(end_s, self._last_decoded_s.get(kind, source_start_s))
        playable_ms = max(0, int((whole_s - source_start_s) * 1000))
        raise SourceEndsEarly(key, message, playable_ms=playable_ms)
