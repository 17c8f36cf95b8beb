"""The clipper's story, told with real databases and a media engine that is a fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from services.clipper.app import RECEIVES, SENDS, routes
from services.clipper.domain.clip_outcome import OUTCOME_OF, conflicting_duplicate
from services.clipper.handlers import Clipper, cut_clip, forget_source, give_up_clip, index_source
from services.clipper.settings import ClipperSettings
from services.clipper.store import Clips, Sources
from shared.database.engine import Connection, Database
from shared.events.clip import (
    AskedPrecision,
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipRefused,
    ClipRequested,
)
from shared.events.envelope import EventData
from shared.events.fields import WireRange
from shared.events.source import SourceAvailable, SourceRemoved
from shared.inbox.outcome import Done, Later, LeaseLost, Outcome, WorldMoved
from shared.kernel.timeline import TimeRange
from shared.media.port import (
    ClipFile,
    Cut,
    MediaInfo,
    Picture,
    Precision,
    Progress,
    SourceBroken,
    SourceEndsEarly,
)
from shared.outbox.writing import Outbox
from shared.storage.local import FileStorage
from shared.storage.port import StoredObject, WriteOptions
from tests.integration.workshop import told

E = TypeVar("E", bound=EventData)

NOON_MS = 1_795_348_800_000
SETTLE_MS = 2_000


@dataclass
class StoppedClock:
    """A clock that moves when it is told to."""

    at_ms: int = NOON_MS + 3_600_000

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_ms(self) -> int:
        return self.at_ms


@dataclass
class ClaimedWork:
    """Work that is always ours, and remembers what it was told to wait for."""

    waiting_since_ms: int
    owner: tuple[int, int] = (1, 1)
    attempt: int = 1
    wake_keys: list[str] = field(default_factory=list)

    async def still_ours(self) -> None:
        """Nobody else works here."""

    async def wake_on(self, *keys: str) -> None:
        self.wake_keys += keys


@dataclass
class PretendedMedia:
    """A media engine that writes down what it is asked to cut."""

    cuts: list[tuple[Cut, ...]] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    broken: SourceBroken | None = None
    plays_ms: dict[str, int] = field(default_factory=dict)  # up to where sources that were cut off play
    lasts_ms: dict[str, int] = field(default_factory=dict)  # of sources that are asked how long they last
    precisions: list[Precision] = field(default_factory=list)

    async def describe(self, key: str) -> MediaInfo:
        return MediaInfo(self.lasts_ms[key], "mp4", "h264", None, 640, 360, 1000)

    async def cut(
        self,
        cuts: Sequence[Cut],
        *,
        into: str,
        options: WriteOptions,
        precision: Precision = Precision.EDIT_LIST,
        progress: Progress | None = None,
    ) -> ClipFile:
        assert options.if_absent
        assert progress is not None
        if self.broken:
            raise self.broken
        for cut in cuts:
            if cut.end_ms > (plays_ms := self.plays_ms.get(cut.source_key, cut.end_ms)):
                raise SourceEndsEarly(cut.source_key, f"{cut.source_key} ends early", playable_ms=plays_ms)
        self.cuts.append(tuple(cuts))
        self.precisions.append(precision)
        if options.before_completion:
            await options.before_completion()
        self.completed.append(into)
        stored = StoredObject(into, size_bytes=1000, etag="e", modified_ms=0)
        return ClipFile(
            stored=stored,
            sha256="0" * 64,
            crc32=None,
            duration_ms=sum(cut.duration_ms for cut in cuts),
            video_frames=300,
            width=640,
            height=360,
            reencoded_ms=((0, 500),) if precision is Precision.SMART else (),
            earlier_ms=700 if precision is Precision.KEYFRAME else 0,
            later_ms=300 if precision is Precision.KEYFRAME else 0,
            source_bytes_read=1100,
            copied_bytes=0,
            proof_bytes_read=10,
            adopted=False,
        )

    async def thumbnails(self, key: str, *, at_ms: int, widths: Sequence[int]) -> tuple[Picture, ...]:
        assert at_ms > 0
        return tuple(Picture(min(width, 640), min(width, 640) * 9 // 16, key.encode()) for width in widths)


@pytest.fixture
async def clipper(database: Database, tmp_path: Path) -> Clipper:
    clock = StoppedClock()
    storage = await FileStorage.open(
        tmp_path / "media", public_url="http://localhost", signing_key=b"k" * 32, clock=clock
    )
    return Clipper(
        clips=Clips(database, clock),
        sources=Sources(database, clock),
        media=PretendedMedia(),
        storage=storage,
        clock=clock,
        settings=ClipperSettings(settle_ms=SETTLE_MS),
    )


def request(clip_id: str = "clip-1", *, start_ms: int = 10_000, end_ms: int = 30_000) -> ClipRequested:
    return ClipRequested(
        clip_id=clip_id,
        camera_id="cam-1",
        start_timestamp_in_ms=NOON_MS + start_ms,
        end_timestamp_in_ms=NOON_MS + end_ms,
    )


def utc_range(start_ms: int, end_ms: int) -> WireRange:
    return WireRange(start_timestamp_in_ms=NOON_MS + start_ms, end_timestamp_in_ms=NOON_MS + end_ms)


def source(key: str, *, start_ms: int, end_ms: int | None) -> SourceAvailable:
    return SourceAvailable(
        camera_id="cam-1",
        key=key,
        start_timestamp_in_ms=NOON_MS + start_ms,
        end_timestamp_in_ms=None if end_ms is None else NOON_MS + end_ms,
    )


class Desk:
    """Does work as the worker would: calls the handler, and commits what it returns."""

    def __init__(self, clipper: Clipper, database: Database) -> None:
        self.clipper = clipper
        self.database = database
        assert isinstance(clipper.media, PretendedMedia)
        assert isinstance(clipper.clock, StoppedClock)
        self.media = clipper.media
        self.clock = clipper.clock

    async def work(self, *, waited_ms: int = SETTLE_MS) -> ClaimedWork:
        return ClaimedWork(waiting_since_ms=await self.database.now_ms() - waited_ms)

    async def announce(self, *sources: SourceAvailable) -> None:
        for each in sources:
            await self.commit(await index_source(each, work=await self.work(), clipper=self.clipper))

    async def take_back(self, key: str) -> None:
        gone = SourceRemoved(camera_id="cam-1", key=key)
        await self.commit(await forget_source(gone, work=await self.work(), clipper=self.clipper))

    async def indexed(self) -> list[str]:
        """Return the keys of all sources in the index."""
        day = TimeRange(NOON_MS, NOON_MS + 86_400_000)
        return [span.key for span in await self.clipper.sources.overlapping("cam-1", day)]

    async def ask(self, event: ClipRequested, *, waited_ms: int = SETTLE_MS) -> Outcome:
        outcome = await cut_clip(event, work=await self.work(waited_ms=waited_ms), clipper=self.clipper)
        await self.commit(outcome)
        return outcome

    async def commit(self, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            for write in outcome.writes:
                await self.database.write(write)


@pytest.fixture
def desk(clipper: Clipper, database: Database) -> Desk:
    return Desk(clipper, database)


def answer(outcome: Outcome, kind: type[E]) -> E:
    """Return the one event that work ended with, which is of this kind."""
    assert isinstance(outcome, Done)
    [event] = outcome.events
    assert isinstance(event, kind)
    return event


async def test_the_reference_lists_what_the_clipper_works(clipper: Clipper) -> None:
    assert tuple(route.data for route in routes(clipper, None)) == RECEIVES
    assert {data.type for data in SENDS} == {ClipRequested.type, *OUTCOME_OF}


async def test_a_clip_across_two_sources_is_cut_from_both_and_announced(desk: Desk) -> None:
    await desk.announce(
        source("b.mp4", start_ms=20_000, end_ms=40_000), source("a.mp4", start_ms=0, end_ms=20_000)
    )

    outcome = await desk.ask(request())

    event = answer(outcome, ClipAvailable)
    assert event.source_keys == ("a.mp4", "b.mp4")
    assert event.clip.key == "clips/cam-1/clip-1.mp4"
    assert [(t.size, t.width) for t in event.thumbnails] == [("original", 640), ("300", 300), ("640", 640)]
    assert desk.media.cuts == [
        (Cut("a.mp4", 10_000, 20_000, declared_ms=20_000), Cut("b.mp4", 0, 10_000, declared_ms=20_000))
    ]


async def test_the_same_request_is_answered_again_without_work(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))
    first = await desk.ask(request())

    again = await desk.ask(request())

    assert isinstance(first, Done)
    assert isinstance(again, Done)
    assert again.events == first.events
    assert again.writes == ()
    assert len(desk.media.cuts) == 1


@pytest.mark.parametrize(
    ("precision", "shown_ms", "reencoded_ms"),
    [
        pytest.param(None, (10_000, 30_000), None, id="as the clipper is set"),
        pytest.param("edit-list", (10_000, 30_000), None, id="edit list"),
        pytest.param("smart", (10_000, 30_000), (10_000, 10_500), id="smart"),
        pytest.param("keyframe", (9_300, 30_300), None, id="key frames"),
    ],
)
async def test_a_clip_tells_what_it_shows_and_what_was_encoded_anew(
    desk: Desk,
    precision: AskedPrecision,
    shown_ms: tuple[int, int],
    reencoded_ms: tuple[int, int] | None,
) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))

    outcome = await desk.ask(request().model_copy(update={"precision": precision}))

    event = answer(outcome, ClipAvailable)
    assert event.precision == precision
    assert desk.media.precisions == [event.clip.precision] == [precision or "edit-list"]
    assert event.clip.shown_range == utc_range(*shown_ms)
    assert event.clip.reencoded_ranges == ((utc_range(*reencoded_ms),) if reencoded_ms else None)
    assert event.clip.reencoded == (reencoded_ms is not None)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"end_timestamp_in_ms": NOON_MS + 31_000}, id="another range"),
        pytest.param({"camera_id": "cam-2"}, id="another camera"),
        pytest.param({"precision": "smart"}, id="another precision"),
    ],
)
async def test_another_request_under_the_same_id_is_refused_and_changes_nothing(
    desk: Desk, other: dict[str, Any]
) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))
    await desk.ask(request())
    another = request().model_copy(update=other)

    outcome = await desk.ask(another)

    assert outcome == Done(conflicting_duplicate(another))
    row = await desk.clipper.clips.find("clip-1")
    assert row is not None
    assert row.status == "available"


async def test_work_that_lost_its_claim_completes_no_upload(desk: Desk) -> None:
    class Lost(ClaimedWork):
        """Work that somebody else has by now."""

        async def still_ours(self) -> None:
            raise LeaseLost

    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))
    work = Lost(waiting_since_ms=await desk.database.now_ms())
    with pytest.raises(LeaseLost):
        await cut_clip(request(), work=work, clipper=desk.clipper)

    assert (len(desk.media.cuts), desk.media.completed) == (1, [])


async def test_what_was_not_recorded_is_named(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=15_000))

    outcome = await desk.ask(request())

    event = answer(outcome, ClipNotAvailable)
    [gap] = event.missing
    assert (gap.start_timestamp_in_ms, gap.end_timestamp_in_ms) == (NOON_MS + 15_000, NOON_MS + 30_000)


async def test_a_request_waits_a_moment_for_sources_that_are_just_being_announced(desk: Desk) -> None:
    work = await desk.work(waited_ms=0)

    outcome = await cut_clip(request(), work=work, clipper=desk.clipper)

    assert isinstance(outcome, Later)
    assert outcome.until_ms == work.waiting_since_ms + SETTLE_MS
    assert work.wake_keys == ["sources of cam-1"]


async def test_a_source_that_comes_while_a_request_registers_is_seen(desk: Desk) -> None:
    arriving = source("a.mp4", start_ms=0, end_ms=60_000)

    @dataclass
    class Registering(ClaimedWork):
        """Work during whose registering the source arrives: nobody was there yet to be woken."""

        async def wake_on(self, *keys: str) -> None:
            await desk.announce(arriving)
            await super().wake_on(*keys)

    work = Registering(waiting_since_ms=await desk.database.now_ms())
    outcome = await cut_clip(request(), work=work, clipper=desk.clipper)

    answer(outcome, ClipAvailable)


async def test_a_request_over_http_is_written_down_and_told_together_or_not_at_all(desk: Desk) -> None:
    async def broken(_connection: Connection) -> None:
        raise LookupError

    outbox = Outbox(desk.clock, source="/test", written=lambda: None)
    with pytest.raises(LookupError):
        await desk.clipper.clips.request(request("untold"), tell=broken)
    await desk.clipper.clips.request(request("told"), tell=outbox.command(request("told")))
    untold, seen = await desk.clipper.clips.find("untold"), await desk.clipper.clips.find("told")

    assert untold is None
    assert seen is not None
    assert [(event.type, event.subject) for event in await told(desk.database)] == [
        ("clip_requested", "told")
    ]


async def test_a_request_that_ended_without_a_clip_can_be_made_again(desk: Desk) -> None:
    missing = await desk.ask(request())
    missing_again = await desk.ask(request())
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))

    available = await desk.ask(request())

    said, said_again = answer(missing, ClipNotAvailable), answer(missing_again, ClipNotAvailable)
    assert said_again == said, "the same answer has the same revision, so the same id"
    assert answer(available, ClipAvailable).revision == 2


async def test_a_source_that_is_announced_again_is_corrected(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=15_000))
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))

    outcome = await desk.ask(request())

    answer(outcome, ClipAvailable)


async def test_a_source_that_is_announced_without_an_end_is_asked_for_it(desk: Desk) -> None:
    desk.media.lasts_ms["a.mp4"] = 25_000
    await desk.announce(source("a.mp4", start_ms=0, end_ms=None))

    outcome = await desk.ask(request(start_ms=20_000, end_ms=26_000))

    event = answer(outcome, ClipNotAvailable)
    assert [gap.start_timestamp_in_ms - NOON_MS for gap in event.missing] == [25_000]


async def test_a_source_that_lasts_no_time_is_no_source(desk: Desk) -> None:
    desk.media.lasts_ms["a.mp4"] = 0

    with pytest.raises(SourceBroken, match="lasts no time"):
        await desk.announce(source("a.mp4", start_ms=0, end_ms=None))


async def test_a_source_that_went_is_forgotten(desk: Desk) -> None:
    await desk.announce(
        source("a.mp4", start_ms=0, end_ms=1_000), source("b.mp4", start_ms=1_000, end_ms=2_000)
    )

    await desk.take_back("a.mp4")
    await desk.take_back("never-there.mp4")

    assert await desk.indexed() == ["b.mp4"]


async def test_a_removal_that_comes_late_hides_no_newer_object(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=1_000))
    async with desk.clipper.storage.writer("a.mp4", WriteOptions()) as writer:
        await writer.write(b"stored again")

    await desk.take_back("a.mp4")

    assert await desk.indexed() == ["a.mp4"]


async def test_a_source_that_is_announced_again_while_it_is_forgotten_stays(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=1_000))
    gone = SourceRemoved(camera_id="cam-1", key="a.mp4")
    forgotten = await forget_source(gone, work=await desk.work(), clipper=desk.clipper)
    desk.clock.at_ms += 1
    await desk.announce(source("a.mp4", start_ms=0, end_ms=2_000))

    await desk.commit(forgotten)

    assert await desk.indexed() == ["a.mp4"]


async def test_a_broken_source_is_named_and_the_next_clip_is_fine(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))
    desk.media.broken = SourceBroken("a.mp4", "a.mp4 is not media")
    failed = await desk.ask(request())
    desk.media.broken = None

    fine = await desk.ask(request("clip-2"))

    event = answer(failed, ClipFailed)
    assert (event.source_key, event.fault, event.reason) == ("a.mp4", "source", "a.mp4 is not media")
    answer(fine, ClipAvailable)


async def test_what_is_left_of_a_source_that_was_cut_off_is_shown_and_the_loss_is_told(desk: Desk) -> None:
    await desk.announce(
        source("a.mp4", start_ms=0, end_ms=20_000), source("b.mp4", start_ms=20_000, end_ms=60_000)
    )
    desk.media.plays_ms = {"b.mp4": 4_000}

    outcome = await desk.ask(request())

    event = answer(outcome, ClipAvailable)
    assert event.missing == (utc_range(24_000, 30_000),)
    assert event.clip.shown_range == utc_range(10_000, 24_000)
    assert event.clip.duration_ms == 14_000
    assert desk.media.cuts == [
        (
            Cut("a.mp4", 10_000, 20_000, declared_ms=20_000),
            Cut("b.mp4", 0, 4_000, declared_ms=40_000),
        )
    ]


async def test_another_source_stands_in_for_the_end_of_one_that_was_cut_off(desk: Desk) -> None:
    await desk.announce(
        source("a.mp4", start_ms=0, end_ms=60_000), source("b.mp4", start_ms=15_000, end_ms=50_000)
    )
    desk.media.plays_ms = {"a.mp4": 16_000}

    outcome = await desk.ask(request())

    event = answer(outcome, ClipAvailable)
    assert event.missing is None
    assert event.source_keys == ("a.mp4", "b.mp4")


async def test_a_source_of_which_nothing_wanted_is_left_is_broken(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))
    desk.media.plays_ms = {"a.mp4": 9_000}

    outcome = await desk.ask(request())

    event = answer(outcome, ClipFailed)
    assert (event.source_key, event.fault) == ("a.mp4", "source")


async def test_many_sources_that_were_cut_off_are_not_tried_for_ever(desk: Desk) -> None:
    starts_ms = range(10_000, 30_000, 1_000)
    await desk.announce(*(source(f"{at}.mp4", start_ms=at, end_ms=at + 1_000) for at in starts_ms))
    desk.media.plays_ms = {f"{at}.mp4": 500 for at in starts_ms}

    outcome = await desk.ask(request())

    answer(outcome, ClipFailed)


async def test_a_refusal_is_kept_and_said_the_same_again(desk: Desk) -> None:
    backwards = request(start_ms=30_000, end_ms=10_000)
    first = await desk.ask(backwards)

    again = await desk.ask(backwards)

    event = answer(first, ClipRefused)
    assert (event.reason, event.field) == ("end_before_start", "endTimestampInMs")
    assert answer(again, ClipRefused) == event


async def test_two_workers_on_one_request_conclude_it_once(desk: Desk) -> None:
    await desk.announce(source("a.mp4", start_ms=0, end_ms=60_000))
    one = await cut_clip(request(), work=await desk.work(), clipper=desk.clipper)
    other = await cut_clip(request(), work=await desk.work(), clipper=desk.clipper)
    await desk.commit(one)

    with pytest.raises(WorldMoved):
        await desk.commit(other)

    assert answer(other, ClipAvailable) == answer(one, ClipAvailable)


async def test_a_request_is_seen_from_the_moment_it_is_worked_on(desk: Desk) -> None:
    work = await desk.work(waited_ms=0)
    waiting = await cut_clip(request(), work=work, clipper=desk.clipper)
    new = await desk.clipper.clips.find("clip-1")
    await desk.ask(request())
    ended = await desk.clipper.clips.find("clip-1")
    await cut_clip(request(), work=await desk.work(waited_ms=0), clipper=desk.clipper)
    asked_again = await desk.clipper.clips.find("clip-1")

    assert isinstance(waiting, Later)
    assert new is not None
    assert ended is not None
    assert asked_again is not None
    assert [row.status for row in (new, ended, asked_again)] == ["requested", "not_available", "requested"]
    assert {row.requested_ms for row in (new, ended, asked_again)} == {work.waiting_since_ms}
    assert asked_again.result == ended.result


async def test_who_asked_hears_that_a_clip_was_given_up(desk: Desk) -> None:
    outcome = await give_up_clip(request(), reason="the store was away for a day", clipper=desk.clipper)
    await desk.commit(outcome)

    event = answer(outcome, ClipFailed)
    assert (event.fault, event.reason) == ("spool", "the store was away for a day")
    row = await desk.clipper.clips.find("clip-1")
    assert row is not None
    assert row.status == "failed"
