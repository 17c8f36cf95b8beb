"""An address becomes an adapter. The only place that knows which technology is behind a port."""
# Clients of servers take a second to import, so only those that are asked for are imported.
# ruff: noqa: PLC0415

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import imageio_ffmpeg
from prometheus_client import Gauge

from shared.bus.message import Message
from shared.bus.port import Bus, Inspectable
from shared.database.engine import Database
from shared.database.opening import open_database
from shared.events.plain import PublicPlace
from shared.events.s3_notification import Bucket
from shared.kernel.checkpoint import Checkpoint, pass_by
from shared.kernel.clock import Clock
from shared.kernel.errors import Refused, Unavailable
from shared.media.engine import MediaEngine
from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Media
from shared.media.traced import TracedMedia
from shared.observability.media_metrics import metrics_of_process
from shared.observability.metrics import BUS_CONNECTED, BUS_CONSUMING, RECEIVED_MESSAGES_HELD, UNROUTED
from shared.observability.tracing import recorded_by, recording
from shared.outbox.plain import as_plain
from shared.outbox.relay import Relay
from shared.settings.settings import Settings, SettingsError, TraceSettings, load
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage
from shared.storage.s3_address import S3Address
from shared.storage.traced import TracedStorage

PortT = TypeVar("PortT")

SPARE_CONNECTIONS = 8  # beside the hands: heartbeat, relay, ticks and the HTTP routes


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything that services stand on, open. Each field is a port; only this module knows the adapters."""

    settings: Settings
    clock: Clock
    database: Database
    bus: Bus
    storage: Storage
    uploads: UploadJournal
    media: Media
    relay: Relay
    name: str  # this process's own, written beside its claims
    bucket: Bucket | None  # where the objects are, when that is one
    checkpoint: Checkpoint = pass_by


def _as_it_is(port: PortT) -> PortT:
    return port


@dataclass(frozen=True, slots=True)
class Seams:
    """What tests put between a port and all who use it, in this process. Outside of tests nothing."""

    database: Callable[[Database], Database] = _as_it_is
    bus: Callable[[Bus], Bus] = _as_it_is
    storage: Callable[[Storage], Storage] = _as_it_is
    media: Callable[[Media], Media] = _as_it_is
    checkpoint: Checkpoint = pass_by  # told each step of the road of one event


@dataclass(frozen=True, slots=True)
class Lending:
    """How a directory lends objects by URL: the address of this server, and the key that it signs with."""

    public_url: str
    signing_key: bytes

    @classmethod
    def by(cls, api_key: str, *, public_url: str) -> Lending:
        """Derive the signing key from an API key: whoever may read everything may lend something."""
        return cls(public_url, hashlib.sha256(b"spool lending\n" + api_key.encode()).digest())


@asynccontextmanager
async def open_platform(
    settings: Settings, *, clock: Clock, hands: int, lending: Lending, seams: Seams
) -> AsyncIterator[Platform]:
    """Open what the settings' addresses name, and close it in the opposite order.

    `hands` is how much work is done at once: the database gets as many connections, and some.
    Raises Refused for an address that cannot be one, Unavailable when something does not answer.
    """
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    async with AsyncExitStack() as stack:
        address = settings.database_address
        connections = hands + SPARE_CONNECTIONS
        with _told_as("SPOOL_DATABASE"):
            opened_database = await open_database(address, clock=clock, connections=connections)
        database = seams.database(opened_database)
        stack.push_async_callback(database.close)
        bus = seams.bus(await open_bus(settings))
        stack.push_async_callback(bus.close)
        stack.enter_context(_watched(bus))
        with _told_as("SPOOL_STORAGE"):
            uploads = UploadJournal(database, store_name(settings))
            opened = await open_storage(settings, clock=clock, uploads=uploads, lending=lending)
        storage = seams.storage(TracedStorage(opened) if recording() else opened)
        stack.push_async_callback(storage.close)
        engine = open_media(settings, storage)
        media = seams.media(TracedMedia(engine) if recording() else engine)
        relay = Relay(
            bus=bus,
            database=database,
            clock=clock,
            name=name,
            lease_ms=settings.lease_s * 1000,
            checkpoint=seams.checkpoint,
            form=_form(settings),
        )
        yield Platform(
            settings=settings,
            clock=clock,
            database=database,
            bus=bus,
            storage=storage,
            uploads=uploads,
            media=media,
            relay=relay,
            name=name,
            bucket=_bucket(settings),
            checkpoint=seams.checkpoint,
        )


@contextmanager
def _told_as(variable: str) -> Iterator[None]:
    """Name the setting to look at when what it points to cannot be opened."""
    try:
        yield
    except Refused as error:
        raise SettingsError(f"{variable}: {error.message}", hint=error.hint) from error
    except Unavailable as error:
        raise Unavailable(f"{variable}: {error.message}", hint=error.hint) from error


async def open_bus(settings: Settings, *, create: bool | None = None) -> Inspectable:
    """Connect to the bus. Raises Refused or Unavailable.

    `create` overrides what the address says of making missing queues: a person may always ask for it.
    """
    with _told_as("SPOOL_BUS"):
        return await _open_bus(settings, create=create)


async def _open_bus(settings: Settings, *, create: bool | None) -> Inspectable:
    if settings.bus.startswith("amqp"):
        from shared.bus.rabbitmq import RabbitBus

        return await RabbitBus.open(settings.bus, unrouted=_count_unrouted)
    if settings.bus.startswith("aws:"):
        from shared.bus.sqs import SqsBus

        return await SqsBus.open(
            settings.bus, region=settings.aws_region, create=create, unrouted=_count_unrouted
        )
    from shared.bus.local import LocalBus

    return await LocalBus.open(settings.data_directory / "bus.db", unrouted=_count_unrouted)


@asynccontextmanager
async def recorded_spans(services: Sequence[str]) -> AsyncIterator[None]:
    """Send the spans of this process to a collector, where the environment names one.

    Raises SettingsError: the settings are wrong, or what speaks to a collector is not installed.
    """
    settings = load(TraceSettings)
    if settings.endpoint is None:
        yield
        return
    try:
        from shared.observability.otlp import OtlpRecorder
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name or 'OpenTelemetry'} is not installed",
            hint="run pip install '.[otel]' in a clone of Spool, or unset the variable",
        ) from error
    recorder = OtlpRecorder(
        endpoint=settings.endpoint,
        service_name=settings.service_name,
        default_name="-".join(["spool", *services]),
        instance=f"{socket.gethostname()}:{os.getpid()}",
    )
    try:
        with recorded_by(recorder):
            yield
    finally:
        await recorder.close()


def open_media(settings: Settings, storage: Storage) -> Media:
    """Return the engine that cuts in `storage`, with the ffmpeg of the wheel."""
    binary = Path(imageio_ffmpeg.get_ffmpeg_exe())
    ffmpeg = Ffmpeg(binary, at_once=settings.ffmpegs_at_once, metrics=metrics_of_process())
    return MediaEngine(storage, ffmpeg)


async def open_storage(
    settings: Settings, *, clock: Clock, uploads: UploadJournal | None, lending: Lending
) -> Storage:
    """Open the store; `uploads` is its journal, which only a bucket needs. Raises Refused, Unavailable."""
    address = settings.storage_address
    if address.startswith("s3:"):
        from shared.storage.s3 import S3Storage

        return await S3Storage.open(address, journal=uploads)
    from shared.storage.local import FileStorage

    return await FileStorage.open(
        _directory_of(address), public_url=lending.public_url, signing_key=lending.signing_key, clock=clock
    )


def store_name(settings: Settings) -> str:
    """Return what the journal of uploads calls the store, whatever the way to it."""
    address = settings.storage_address
    return S3Address.parse(address).name if address.startswith("s3:") else address


def _bucket(settings: Settings) -> Bucket | None:
    if not settings.storage_address.startswith("s3:"):
        return None
    address = S3Address.parse(settings.storage_address)
    return Bucket(name=address.bucket, prefix=address.prefix)


def _form(settings: Settings) -> Callable[[Message], Message | None]:
    """Return what each message is sent as, where it is sent."""
    if settings.bus_format == "cloudevents":
        return _as_it_is
    bucket = _bucket(settings)
    place = PublicPlace(
        bucket=bucket.name if bucket else "",
        prefix=bucket.prefix if bucket else "",
        url=settings.bus_plain_url or "",
    )
    return partial(as_plain, place=place)


def _directory_of(address: str) -> Path:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise Refused(
            f"{address} names no directory of this machine",
            hint="for example SPOOL_STORAGE=file:///var/lib/spool/media",
        )
    return Path(unquote(parts.path))


@contextmanager
def _watched(bus: Bus) -> Iterator[None]:
    """Let the metrics ask the bus how it is, whenever somebody asks them."""
    system = bus.capabilities.system
    answers: dict[Gauge, Callable[[], float]] = {
        BUS_CONNECTED: lambda: bus.health().connected,
        BUS_CONSUMING: lambda: bus.health().consuming,
        RECEIVED_MESSAGES_HELD: lambda: bus.health().held,
    }
    for gauge, answer in answers.items():
        gauge.labels(system).set_function(answer)
    try:
        yield
    finally:
        for gauge in answers:
            gauge.remove(system)


def _count_unrouted(event_type: str) -> None:
    UNROUTED.labels(event_type).inc()
