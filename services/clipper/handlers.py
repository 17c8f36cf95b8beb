"""One function per event. Each reads, lets the domain decide, acts, and returns what happened."""

from __future__ import annotations

from dataclasses import dataclass

from services.clipper.domain import clip_outcome
from services.clipper.domain.clip_keys import ORIGINAL, clip_key, thumbnail_key
from services.clipper.domain.clip_outcome import (
    STATUS_OF,
    conflicting_duplicate,
    refused,
    revised,
    said_before,
)
from services.clipper.domain.clip_plan import ClipPlan, plan_clip, plan_what_plays
from services.clipper.domain.clip_request import refusal_of, wanted_range
from services.clipper.settings import ClipperSettings
from services.clipper.store import ClipRow, Clips, Sources, reported_progress, sources_of
from shared.events.clip import ClipAvailable, ClipOutcome, ClipRequested, StoredClip, Thumbnail
from shared.events.fields import WireRange
from shared.events.source import SourceAvailable, SourceRemoved
from shared.inbox.outcome import Done, Later, Work
from shared.kernel.clock import Clock
from shared.kernel.errors import Corrupt, NotFound
from shared.kernel.timeline import TimeRange
from shared.media.port import ClipFile, Cut, Media, Precision, SourceBroken, SourceEndsEarly
from shared.storage.port import Storage, WriteOptions

MAX_CUT_OFF = 8  # sources of one clip that may end sooner than announced


@dataclass(frozen=True, slots=True)
class Clipper:
    """What the handlers of the clipper work with."""

    clips: Clips
    sources: Sources
    media: Media
    storage: Storage
    clock: Clock
    settings: ClipperSettings


async def index_source(event: SourceAvailable, *, work: Work, clipper: Clipper) -> Done:  # noqa: ARG001  # every handler is given its work
    """Remember where a camera was recorded. A source that is announced without an end is asked for it."""
    end_ms = event.end_timestamp_in_ms
    if end_ms is None:
        duration_ms = (await clipper.media.describe(event.key)).duration_ms
        if duration_ms <= 0:
            raise SourceBroken(event.key, f"the source {event.key} lasts no time at all")
        end_ms = event.start_timestamp_in_ms + duration_ms
    return Done(writes=(clipper.sources.remember(event, end_ms=end_ms),))


async def forget_source(event: SourceRemoved, *, work: Work, clipper: Clipper) -> Done:  # noqa: ARG001  # as above
    """Take a source out of the index, when it really is gone: a late removal must not hide a newer object."""
    indexed = await clipper.sources.find(event.camera_id, event.key)
    if indexed is None or await _is_stored(clipper, event.key):
        return Done()
    return Done(writes=(clipper.sources.forget(indexed),))


async def cut_clip(event: ClipRequested, *, work: Work, clipper: Clipper) -> Done | Later:
    """Cut the wanted range out of a camera's sources, with thumbnails, and store it under its own key."""
    seen = await clipper.clips.find(event.clip_id)
    answer = _answer_without_work(event, seen, clipper)
    if answer:
        return answer

    seen = await clipper.clips.take_up(event, requested_ms=work.waiting_since_ms)
    plan = await _plan(event, work=work, clipper=clipper)
    if plan is None:
        until_ms = work.waiting_since_ms + clipper.settings.settle_ms
        return Later(until_ms, reason="sources of the camera may just be arriving")
    if plan.missing:
        return _conclude(clipper, clip_outcome.not_available(event, plan.missing), seen)

    try:
        outcome = await _make_what_plays(event, plan, work=work, clipper=clipper)
    except SourceBroken as error:
        return _conclude(clipper, _broken_source(event, error), seen)
    except Corrupt as error:
        return _conclude(clipper, _broken_result(event, error), seen)
    return _conclude(clipper, outcome, seen)


async def give_up_clip(event: ClipRequested, *, reason: str, clipper: Clipper) -> Done:
    """Tell who asked that the clip will not be made: the work lies with the dead letters."""
    seen = await clipper.clips.find(event.clip_id)
    if seen and (not seen.asks_for(event) or seen.status == STATUS_OF[ClipAvailable]):
        return Done()
    advice = "an operator can replay it: spool dead-letters list"
    outcome = clip_outcome.failed(event, reason=reason, fault="spool", advice=advice)
    return _conclude(clipper, outcome, seen)


def _answer_without_work(event: ClipRequested, seen: ClipRow | None, clipper: Clipper) -> Done | None:
    """Answer what was answered before, or what nobody could cut."""
    if seen and not seen.asks_for(event):
        return Done(conflicting_duplicate(event))
    if seen and seen.status == STATUS_OF[ClipAvailable]:
        return _answer_again(seen)
    now_ms = clipper.clock.now_ms()
    refusal = refusal_of(event, now_ms=now_ms, max_clip_ms=clipper.settings.max_clip_ms)
    return _conclude(clipper, refused(event, refusal), seen) if refusal else None


async def _is_stored(clipper: Clipper, key: str) -> bool:
    try:
        await clipper.storage.head(key)
    except NotFound:
        return False
    return True


async def _plan(event: ClipRequested, *, work: Work, clipper: Clipper) -> ClipPlan | None:
    """Plan from what is indexed. None while something is missing that may just be arriving."""
    wanted = wanted_range(event)
    plan = plan_clip(wanted, await clipper.sources.overlapping(event.camera_id, wanted))
    settled_ms = work.waiting_since_ms + clipper.settings.settle_ms
    # By the clock that the work sleeps by: one that lags would let it wake for nothing, again and again.
    if not plan.missing or await clipper.sources.now_ms() >= settled_ms:
        return plan
    # Registered before looking again: a source that is indexed in between wakes this work.
    await work.wake_on(sources_of(event.camera_id))
    plan = plan_clip(wanted, await clipper.sources.overlapping(event.camera_id, wanted))
    return None if plan.missing else plan


async def _make_what_plays(
    event: ClipRequested, plan: ClipPlan, *, work: Work, clipper: Clipper
) -> ClipAvailable:
    """Make the clip, without what its sources turn out to lack: nobody records that again."""
    wanted = wanted_range(event)
    ends_ms: dict[str, int] = {}
    while True:
        try:
            return await _make_clip(event, plan, work=work, clipper=clipper)
        except SourceEndsEarly as error:
            key = error.source_key
            if key in ends_ms or len(ends_ms) == MAX_CUT_OFF:
                raise
            start_ms = next(piece.source.span.start_ms for piece in plan.pieces if piece.source.key == key)
            ends_ms[key] = start_ms + error.playable_ms
            recorded = await clipper.sources.overlapping(event.camera_id, wanted)
            plan = plan_what_plays(wanted, recorded, ends_ms)
            if not plan.pieces:
                raise


async def _make_clip(event: ClipRequested, plan: ClipPlan, *, work: Work, clipper: Clipper) -> ClipAvailable:
    """Write the clip and then its pictures; nothing is announced before all of them are there."""
    key = clip_key(clipper.settings.key_prefix, event.camera_id, event.clip_id)
    # The key depends on nothing but the request, so work done twice
    # finds its own object instead of leaving a second one behind.
    options = WriteOptions(
        content_type="video/mp4", if_absent=True, owner=work.owner, before_completion=work.still_ours
    )
    precision = Precision(event.precision or clipper.settings.precision)
    async with reported_progress(clipper.clips, event.clip_id) as progress:
        clip = await clipper.media.cut(
            _cuts(plan), into=key, options=options, precision=precision, progress=progress
        )
    thumbnails = await _store_thumbnails(event, clip, work=work, clipper=clipper)
    return ClipAvailable(
        **event.model_dump(),
        clip=_stored_clip(plan, clip, precision),
        thumbnails=thumbnails,
        source_keys=tuple(dict.fromkeys(piece.source.key for piece in plan.pieces)),
        source_bytes_read=clip.source_bytes_read,
        missing=tuple(map(WireRange.of, plan.missing)) or None,
    )


async def _store_thumbnails(
    event: ClipRequested, clip: ClipFile, *, work: Work, clipper: Clipper
) -> tuple[Thumbnail, ...]:
    if clip.width == 0:
        return ()  # a clip without a picture
    settings = clipper.settings
    sizes = {ORIGINAL: clip.width} | {str(width): width for width in settings.thumbnail_widths}
    at_ms = clip.duration_ms * settings.thumbnail_percent // 100
    pictures = await clipper.media.thumbnails(clip.stored.key, at_ms=at_ms, widths=tuple(sizes.values()))

    stored: list[Thumbnail] = []
    for size, picture in zip(sizes, pictures, strict=True):
        key = thumbnail_key(settings.key_prefix, event.camera_id, event.clip_id, size)
        options = WriteOptions(content_type="image/jpeg", owner=work.owner, before_completion=work.still_ours)
        async with clipper.storage.writer(key, options) as writer:
            await writer.write(picture.jpeg)
        stored.append(Thumbnail(size=size, key=key, width=picture.width, height=picture.height))
    return tuple(stored)


def _cuts(plan: ClipPlan) -> tuple[Cut, ...]:
    return tuple(
        Cut(
            source_key=piece.source.key,
            start_ms=piece.part.start_ms - piece.source.span.start_ms,
            end_ms=piece.part.end_ms - piece.source.span.start_ms,
            declared_ms=piece.source.span.duration_ms,
            declared_bytes=piece.source.size_bytes,
        )
        for piece in plan.pieces
    )


def _stored_clip(plan: ClipPlan, clip: ClipFile, precision: Precision) -> StoredClip:
    shown = TimeRange(
        plan.pieces[0].part.start_ms - clip.earlier_ms, plan.pieces[-1].part.end_ms + clip.later_ms
    )
    reencoded = (moment for part_ms in clip.reencoded_ms for moment in plan.in_utc(*part_ms))
    return StoredClip(
        key=clip.stored.key,
        size_bytes=clip.stored.size_bytes,
        sha256=clip.sha256,
        crc32=clip.crc32,
        etag=clip.stored.etag,
        duration_ms=clip.duration_ms,
        video_frames=clip.video_frames,
        width=clip.width,
        height=clip.height,
        reencoded=bool(clip.reencoded_ms),
        reencoded_because=clip.reencoded_because,
        reencoded_ranges=tuple(map(WireRange.of, reencoded)) or None,
        precision=precision.value,
        shown_range=WireRange.of(shown),
    )


def _broken_source(event: ClipRequested, error: SourceBroken) -> ClipOutcome:
    advice = error.hint or "store the source again, announce it with source_available, and ask again"
    return clip_outcome.failed(
        event, reason=error.message, fault="source", advice=advice, source_key=error.source_key
    )


def _broken_result(event: ClipRequested, error: Corrupt) -> ClipOutcome:
    advice = "ask again; if it fails again, report the sources as a bug of Spool"
    return clip_outcome.failed(event, reason=error.message, fault="spool", advice=advice)


def _answer_again(seen: ClipRow) -> Done:
    outcome = said_before(seen.result_type, seen.result)
    return Done(outcome) if outcome else Done()


def _conclude(clipper: Clipper, outcome: ClipOutcome, seen: ClipRow | None) -> Done:
    before = said_before(seen.result_type, seen.result) if seen else None
    final = revised(outcome, before)
    return Done(final, writes=(clipper.clips.conclude(final, STATUS_OF[type(final)], seen=seen),))
