"""Where a process of Spool dies: before or after any call of a port, or after any step of the road.

Each port is wrapped once, when it is opened, so that the relay, the journal of uploads and the media engine
are watched as well. Every moment has two names, the port and the moment itself (`bus` and
`bus.publish before`), and a kill point is the n-th moment of a name. That is the manner of SQLite's anomaly
tests: n = 1, 2, 3 … until the work gets through.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from sqlalchemy import ColumnElement

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus, Capabilities, Health
from shared.database.engine import Connection, Database, Unit
from shared.kernel.checkpoint import Step
from shared.media.port import ClipFile, Cut, Media, MediaInfo, Picture, Precision, Progress
from shared.runtime.wiring import Seams
from shared.storage.port import Storage, StoredObject, UnfinishedUpload, UploadedPart, WriteOptions, Writer
from shared.storage.s3 import S3Storage

T = TypeVar("T")

PORTS = ("database", "bus", "storage", "media", "s3")
# A stream is a thousand chunks; dying at each of them would tell nothing new.
STREAM_STEP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class KillPoint:
    """The `nth` moment, from 1, that has this name, and what happens there.

    `kill` is SIGKILL, `stop` is SIGSTOP. `hold` keeps one call waiting, before it is passed on, until the
    file `go` is in the working directory; the rest of the process goes on.
    """

    name: str
    nth: int = 1
    what: Literal["kill", "stop", "hold"] = "kill"

    def __str__(self) -> str:
        return f"{self.name} #{self.nth}"


@dataclass(slots=True)
class Watch:
    """Counts moments, and ends the process at the kill point."""

    point: KillPoint | None
    seen: Counter[str] = field(default_factory=Counter)
    holding: bool = False

    def moment(self, name: str) -> None:
        for counted in (name, name.split(".", 1)[0]):
            self.seen[counted] += 1
            if self.point and counted == self.point.name and self.seen[counted] == self.point.nth:
                self._reached(self.point)

    def _reached(self, point: KillPoint) -> None:
        match point.what:
            case "kill":
                die()
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hold":
                self.holding = True

    async def held(self) -> None:
        """Wait, when this is the call to hold, until somebody lets it go."""
        if self.holding:
            self.holding = False
            Path("held").touch()
            while not Path("go").exists():  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.02)

    def step(self, step: Step) -> None:
        self.moment(f"step.{step}")

    async def around(self, name: str, call: Awaitable[T]) -> T:
        self.moment(f"{name} before")
        await self.held()
        result = await call
        self.moment(f"{name} after")
        return result

    def seams(self) -> Seams:
        return Seams(
            database=lambda port: WatchedDatabase(port, self),
            bus=lambda port: WatchedBus(port, self),
            storage=lambda port: WatchedStorage(port, self),
            media=lambda port: WatchedMedia(port, self),
            checkpoint=self.step,
        )


def die() -> NoReturn:
    """End as the kernel ends a process that ran out of memory: no handler, no flush, no goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)  # the signal is there before this returns


@dataclass(frozen=True, slots=True)
class WatchedDatabase:
    _port: Database
    _watch: Watch

    @property
    def dialect(self) -> str:
        return self._port.dialect

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        async def watched(connection: Connection) -> T:
            result = await unit(connection)
            self._watch.moment("database.write uncommitted")
            return result

        return await self._watch.around("database.write", self._port.write(watched, urgent=urgent))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        self._watch.moment("database.read before")
        async with self._port.read() as connection:
            yield connection
        self._watch.moment("database.read after")

    def now_sql(self) -> ColumnElement[int]:
        return self._port.now_sql()

    async def now_ms(self) -> int:
        return await self._port.now_ms()

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        await self._port.listen(channel, heard)

    async def give_back_space(self, *, pages: int = 500) -> None:
        await self._port.give_back_space(pages=pages)

    async def close(self) -> None:
        await self._port.close()


@dataclass(frozen=True, slots=True)
class WatchedBus:
    _port: Bus
    _watch: Watch

    @property
    def capabilities(self) -> Capabilities:
        return self._port.capabilities

    async def declare(self, subscriptions: Sequence[Subscription]) -> None:
        await self._watch.around("bus.declare", self._port.declare(subscriptions))

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._watch.around("bus.publish", self._port.publish(messages))

    async def receive(self, subscription: Subscription, *, at_most: int, wait_s: float) -> list[Delivery]:
        # Only one that brought something is worth a death: the others come once a second.
        deliveries = await self._port.receive(subscription, at_most=at_most, wait_s=wait_s)
        if deliveries:
            self._watch.moment("bus.receive after")
        return deliveries

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._watch.around("bus.acknowledge", self._port.acknowledge(deliveries))

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        await self._watch.around("bus.give_back", self._port.give_back(deliveries))

    async def stop_receiving(self) -> None:
        await self._watch.around("bus.stop_receiving", self._port.stop_receiving())

    def health(self) -> Health:
        return self._port.health()

    async def close(self) -> None:
        await self._port.close()


class WatchedStorage:
    """A store whose calls are moments. Below it, of S3, every request is one as well."""

    def __init__(self, port: Storage, watch: Watch) -> None:
        self._port = port
        self._watch = watch
        if isinstance(port, S3Storage):
            self._watch_requests(port)

    def _watch_requests(self, port: S3Storage) -> None:
        events = port._bucket.client.meta.events
        for hook, when in (("before-call", "before"), ("after-call", "after")):
            events.register(f"{hook}.s3", self._on_request(when))

    def _on_request(self, when: str) -> Callable[..., None]:
        def seen(*, event_name: str, **_: object) -> None:
            self._watch.moment(f"s3.{event_name.rsplit('.', 1)[-1]} {when}")

        return seen

    @property
    def bytes_read(self) -> int:
        return self._port.bytes_read

    async def head(self, key: str) -> StoredObject:
        return await self._watch.around("storage.head", self._port.head(key))

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self._watch.moment("storage.read before")
        async with self._port.read(key, start=start, end=end, if_match=if_match) as chunks:
            yield self._stepwise(chunks)
        self._watch.moment("storage.read after")

    async def _stepwise(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        flow = Flow(self._watch, "storage.read chunk")
        async for chunk in chunks:
            flow.count(len(chunk))
            yield chunk

    @asynccontextmanager
    async def writer(self, key: str, options: WriteOptions) -> AsyncIterator[Writer]:
        self._watch.moment("storage.writer before")
        check = options.before_completion

        async def before_completion() -> None:
            self._watch.moment("storage.writer before completion check")
            if check:
                await check()
            self._watch.moment("storage.writer before completion")

        watched = replace(options, before_completion=before_completion)
        async with self._port.writer(key, watched) as writer:
            self._watch.moment("storage.writer opened")
            yield WatchedWriter(writer, Flow(self._watch, "storage.writer chunk"))
            self._watch.moment("storage.writer written")
        self._watch.moment("storage.writer after")

    def walk(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        return self._port.walk(prefix, after=after)

    async def delete(self, key: str) -> None:
        await self._watch.around("storage.delete", self._port.delete(key))

    async def presign(self, key: str, *, expires_s: int) -> str:
        return await self._port.presign(key, expires_s=expires_s)

    async def unfinished(self, prefix: str = "") -> list[UnfinishedUpload]:
        return await self._watch.around("storage.unfinished", self._port.unfinished(prefix))

    async def abort(self, upload: UnfinishedUpload) -> None:
        await self._watch.around("storage.abort", self._port.abort(upload))

    async def complete(self, upload: UnfinishedUpload, parts: Sequence[UploadedPart]) -> StoredObject | None:
        return await self._watch.around("storage.complete", self._port.complete(upload, parts))

    async def mark_recovered(self, key: str) -> StoredObject:
        return await self._watch.around("storage.mark_recovered", self._port.mark_recovered(key))

    async def check(self) -> None:
        await self._port.check()

    async def close(self) -> None:
        await self._port.close()


@dataclass(slots=True)
class Flow:
    """Makes a moment of a stream's first byte and of every step that it goes on."""

    watch: Watch
    name: str
    reached_bytes: int = 0
    next_bytes: int = 0

    def count(self, size_bytes: int) -> None:
        self.reached_bytes += size_bytes
        while self.reached_bytes > self.next_bytes:
            self.watch.moment(self.name)
            self.next_bytes += STREAM_STEP_BYTES


@dataclass(frozen=True, slots=True)
class WatchedWriter:
    _port: Writer
    _flow: Flow

    async def write(self, chunk: bytes | memoryview) -> None:
        self._flow.count(len(chunk))
        await self._port.write(chunk)

    async def copy(self, source: StoredObject, start: int, end: int) -> int:
        self._flow.count(end - start)
        return await self._port.copy(source, start, end)

    async def prepend(self, head: bytes) -> None:
        await self._port.prepend(head)

    @property
    def stored(self) -> StoredObject:
        return self._port.stored


@dataclass(frozen=True, slots=True)
class WatchedMedia:
    _port: Media
    _watch: Watch

    async def describe(self, key: str) -> MediaInfo:
        return await self._watch.around("media.describe", self._port.describe(key))

    async def cut(
        self,
        cuts: Sequence[Cut],
        *,
        into: str,
        options: WriteOptions,
        precision: Precision = Precision.EDIT_LIST,
        progress: Progress | None = None,
    ) -> ClipFile:
        def watched(done_ms: int, of_ms: int) -> None:
            self._watch.moment("media.cut progress")
            if progress:
                progress(done_ms, of_ms)

        cut = self._port.cut(cuts, into=into, options=options, precision=precision, progress=watched)
        return await self._watch.around("media.cut", cut)

    async def thumbnails(self, key: str, *, at_ms: int, widths: Sequence[int]) -> tuple[Picture, ...]:
        return await self._watch.around(
            "media.thumbnails", self._port.thumbnails(key, at_ms=at_ms, widths=widths)
        )
