"""The clipper, wired: which event goes to which handler, with what it works. The first file to open."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from services.clipper.api import Desk, clip_router
from services.clipper.domain.clip_outcome import STATUS_OF
from services.clipper.handlers import Clipper, cut_clip, forget_source, give_up_clip, index_source
from services.clipper.periodic import SWEEP_EVERY_S, sweep_uploads
from services.clipper.settings import ClipperSettings
from services.clipper.store import Clips, Sources
from shared.bus.message import Subscription
from shared.events.clip import ClipRequested
from shared.events.envelope import EventData
from shared.events.s3_notification import Bucket
from shared.events.source import SourceAvailable, SourceRemoved
from shared.inbox.retry import HOUR_MS, RetryPolicy
from shared.inbox.router import Route, Router, subscriptions_to
from shared.outbox.writing import Outbox
from shared.runtime.scheduler import Tick
from shared.runtime.service import Service
from shared.runtime.wiring import Platform
from shared.settings.settings import load

NAME = "clipper"
# For the reference: what the routes below work, and what handlers and HTTP routes tell.
RECEIVES: tuple[type[EventData], ...] = (SourceAvailable, SourceRemoved, ClipRequested)
SENDS: tuple[type[EventData], ...] = (*STATUS_OF, ClipRequested)
INDEX_HANDS = 2  # a row each: two keep the database busy
FORGET_HANDS = 1


def hands() -> int:
    """How many pieces of work one clipper does at once."""
    return load(ClipperSettings).hands + INDEX_HANDS + FORGET_HANDS


def subscriptions() -> tuple[Subscription, ...]:
    """Return what the clipper needs on the bus: for `spool bus declare`, which opens nothing else."""
    return subscriptions_to(NAME, (SourceAvailable, SourceRemoved, ClipRequested))


def build(platform: Platform) -> Service:
    """Put the clipper together. Raises SettingsError."""
    settings = load(ClipperSettings)
    clipper = Clipper(
        clips=Clips(platform.database, platform.clock),
        sources=Sources(platform.database, platform.clock),
        media=platform.media,
        storage=platform.storage,
        clock=platform.clock,
        settings=settings,
    )
    desk = Desk(
        clips=clipper.clips,
        storage=platform.storage,
        outbox=Outbox(platform.clock, source=f"/spool/{NAME}", written=platform.relay.wake),
        clock=platform.clock,
        settings=settings,
    )
    return Service(
        router=Router(NAME, routes(clipper, _bucket(platform, settings))),
        http=clip_router(desk),
        progress={ClipRequested.type: clipper.clips.progress},
        ticks=(
            Tick(
                task="clipper.sweep_uploads",
                every_s=SWEEP_EVERY_S,
                run=partial(
                    sweep_uploads, storage=platform.storage, uploads=platform.uploads, settings=settings
                ),
            ),
        ),
    )


def _bucket(platform: Platform, settings: ClipperSettings) -> Bucket | None:
    """Say where sources are, for notifications of S3; what the clipper itself writes is none."""
    own = (settings.key_prefix,) if settings.key_prefix else ()
    return platform.bucket and replace(platform.bucket, own=own)


def routes(clipper: Clipper, bucket: Bucket | None) -> tuple[Route, ...]:
    """Return the routing table: event, handler, and how it is worked."""
    return (
        Route(
            SourceAvailable,
            partial(index_source, clipper=clipper),
            hands=INDEX_HANDS,
            ordered=True,
            bucket=bucket,
        ),
        Route(
            SourceRemoved,
            partial(forget_source, clipper=clipper),
            hands=FORGET_HANDS,
            ordered=True,
            bucket=bucket,
        ),
        Route(
            ClipRequested,
            partial(cut_clip, clipper=clipper),
            hands=clipper.settings.hands,
            time_limit_s=clipper.settings.time_limit_s,
            retry=RetryPolicy(
                attempts=clipper.settings.attempts, failing_ms=clipper.settings.give_up_hours * HOUR_MS
            ),
            given_up=partial(give_up_clip, clipper=clipper),
        ),
    )
