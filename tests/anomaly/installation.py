"""One installation of Spool, seen from outside: its three addresses, its tables, its store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import ColumnElement, Table, delete, func, not_, select, update
from sqlalchemy.engine import Row

from services.clipper.store import REQUESTED, WORKING, clip_table, source_table
from shared.database.engine import Connection, Database
from shared.database.opening import open_database
from shared.database.tables import State, inbox, outbox, outbox_subject
from shared.events.clip import ClipRequested
from shared.events.envelope import Event, EventData, wrap
from shared.events.source import SourceAvailable
from shared.kernel.errors import Unavailable
from shared.kernel.ids import new_id
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_address import S3Address
from shared.storage.sweeping import sweep
from spool.migrations import migrate
from tests.anomaly.nursery import Nursery, Victim
from tests.anomaly.recordings import Footage
from tests.anomaly.strangers import API_KEY, LocalStranger, RabbitStranger, Stranger
from tests.broker_turn import broker_turn

CLOCK = SystemClock()
CAMERA = "gate"
LOOK_S = 0.05  # between two looks into tables that another process writes
A_LEASE_AND_MORE_MS = 120_000
UNKNOWN_AGE_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Addresses:
    """What configures an installation. None is the embedded default."""

    bus: str | None = None
    database: str | None = None
    storage: str | None = None

    def environment(self, directory: Path, **more: object) -> dict[str, str]:
        """Return the variables of a process that runs on `directory`; `more` are settings by name."""
        settings: dict[str, object] = {
            "data_directory": directory,
            "http_port": 0,
            "api_keys": API_KEY,
            "bus": self.bus,
            "database": self.database,
            "storage": self.storage,
        }
        credentials = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
        given = {name: value for name, value in (settings | more).items() if value is not None}
        return credentials | {f"SPOOL_{name.upper()}": str(value) for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class Installation:
    """Addresses in use. Its tables are there, both sources are stored; open it with `open_installation`."""

    addresses: Addresses
    directory: Path
    footage: Footage
    database: Database
    storage: Storage
    journal: UploadJournal
    stranger: Stranger
    asked: list[Event] = field(default_factory=list)  # every request so far

    def environment(self, **more: object) -> dict[str, str]:
        return self.addresses.environment(self.directory, **more)

    @property
    def keeps_claims(self) -> bool:
        """Whether a process that starts finds the claims of a dead one alive: the database is shared."""
        return self.addresses.database is not None

    @property
    def source_events(self) -> list[Event]:
        return [
            self.event(
                SourceAvailable(
                    camera_id=CAMERA,
                    key=f"recordings/{recording.path.name}",
                    start_timestamp_in_ms=recording.start_ms,
                    end_timestamp_in_ms=recording.end_ms,
                )
            )
            for recording in self.footage.pair
        ]

    def request(self, clip_id: str, *, start_ms: int | None = None, end_ms: int | None = None) -> Event:
        """Ask for a clip; without times for one across the joint."""
        wanted = ClipRequested(
            clip_id=clip_id,
            camera_id=CAMERA,
            start_timestamp_in_ms=start_ms or self.footage.start_ms + 1_010,
            end_timestamp_in_ms=end_ms or self.footage.end_ms - 1_010,
        )
        self.asked.append(self.event(wanted))
        return self.asked[-1]

    @staticmethod
    def event(data: EventData) -> Event:
        return wrap(data, id=new_id(CLOCK), source="/stranger", time_ms=CLOCK.now_ms())

    async def count(self, table: Table, *conditions: ColumnElement[bool]) -> int:
        """Count rows that fulfil all conditions, also while the database drops connections."""
        wanted = select(func.count()).select_from(table).where(*conditions)
        while True:
            with suppress(Unavailable):
                async with self.database.read() as connection:
                    number: int = (await connection.execute(wanted)).scalar_one()
                    return number
            await asyncio.sleep(LOOK_S)

    async def until(self, what: Callable[[], bool] | None, *clip_ids: str) -> bool:
        """Wait until these clips are available, all is done and all is told. False: `what` came first."""
        while not (await self.is_quiet() and await self.are_available(*clip_ids)):
            if what and what():
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def until_file(self, name: str, running: Victim) -> None:
        """Wait until a process has made this file in its working directory."""
        while not (self.directory / name).exists():
            assert not running.has_ended(), running.log.read_text()[-4000:]
            await asyncio.sleep(LOOK_S)

    async def is_quiet(self) -> bool:
        """Tell whether nothing is to be done and nothing to be told."""
        if await self.count(outbox, outbox.c.sent_ms.is_(None), outbox.c.refused.is_(None)):
            return False
        return not await self.count(inbox, inbox.c.state.in_((State.READY, State.WORKING)))

    async def are_available(self, *clip_ids: str) -> bool:
        available = clip_table.c.clip_id.in_(clip_ids), clip_table.c.status == "available"
        return await self.count(clip_table, *available) == len(clip_ids)

    async def was_answered(self, clip_id: str) -> bool:
        """Tell whether a clip is there, or whether it was said that it will not be."""
        under_way = clip_table.c.status.in_((REQUESTED, WORKING))
        return await self.count(clip_table, clip_table.c.clip_id == clip_id, not_(under_way)) == 1

    async def until_worked(self, *events: Event) -> None:
        """Wait until these events came in and are done, and all is told."""
        done = inbox.c.event_id.in_([event.id for event in events]), inbox.c.state == State.DONE
        while await self.count(inbox, *done) < len(events) or not await self.is_quiet():  # noqa: ASYNC110  # tables have no event
            await asyncio.sleep(LOOK_S)

    async def work_on(self, event: Event) -> Row[Any]:
        """Return the row of the inbox that keeps an event, once there is one."""
        wanted = select(inbox).where(inbox.c.event_id == event.id)
        while True:
            async with self.database.read() as connection:
                row = (await connection.execute(wanted)).first()
            if row is not None:
                return row
            await asyncio.sleep(LOOK_S)

    async def let_leases_run_out(self) -> None:
        """Make it later for the claims of the dead, as if nobody had come for two minutes."""
        if not self.keeps_claims:
            return  # whoever starts next releases them all

        async def unit(connection: Connection) -> None:
            earlier = inbox.c.lease_until_ms - A_LEASE_AND_MORE_MS
            await connection.execute(
                update(inbox).where(inbox.c.state == State.WORKING).values(lease_until_ms=earlier)
            )
            held = outbox_subject.c.relay.is_not(None)
            await connection.execute(update(outbox_subject).where(held).values(lease_until_ms=0))

        await self.database.write(unit)

    async def forget_the_dead(self) -> int:
        """Remove all dead letters, and return how many there were."""

        async def unit(connection: Connection) -> int:
            return (await connection.execute(delete(inbox).where(inbox.c.state == State.DEAD))).rowcount

        return await self.database.write(unit)

    async def sweep(self) -> int:
        """Do what the clipper's tick does, without its grace: everything is over. Returns what was swept."""
        swept = await sweep(
            self.storage, self.journal, prefixes=("clips/",), grace_ms=0, unknown_age_ms=UNKNOWN_AGE_MS
        )
        return swept.aborted + swept.recovered

    async def announce_sources(self, nursery: Nursery) -> None:
        """Let a process index both sources and stop."""
        running = await nursery.bear(self.environment(), self.directory)
        await self.until_ready(running)
        await self.stranger.publish(self.source_events, running=True)
        while await self.count(source_table) < len(self.footage.pair) or not await self.is_quiet():
            assert not running.has_ended(), running.log.read_text()
            await asyncio.sleep(LOOK_S)
        await stop(running)

    def copy(self, directory: Path) -> AbstractAsyncContextManager[Installation]:
        """Open a copy of this embedded installation, in which no Spool may run meanwhile."""
        # By another process: one that closes a file of SQLite itself drops the locks of all its connections.
        subprocess.run(["cp", "-r", str(self.directory), str(directory)], check=True)
        return open_installation(directory, self.addresses, self.footage)

    async def until_ready(self, running: Victim) -> None:
        """Wait until the process says that it takes work."""
        while await self.health(running) != 200:
            assert not running.has_ended(), running.log.read_text()
            await asyncio.sleep(LOOK_S)

    async def until_not_ready(self, running: Victim) -> None:
        """Wait until the process says that it takes no work."""
        while await self.health(running) == 200:
            assert not running.has_ended(), running.log.read_text()
            await asyncio.sleep(LOOK_S)

    async def health(self, running: Victim) -> int:
        """Ask whether the process is ready. Returns the status of the answer, 0 when there is none."""
        with suppress(OSError, httpx.TransportError):
            told = json.loads((self.directory / "running.json").read_text())
            if told["pid"] == running.pid:
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"{told['url']}/health/ready")).status_code
        return 0


async def stop(running: Victim) -> None:
    """Ask a process to stop, and wait until it has drained."""
    running.send(signal.SIGTERM)
    code = await running.end()
    assert code == 0, running.log.read_text()[-4000:]


@asynccontextmanager
async def open_installation(
    directory: Path, addresses: Addresses, footage: Footage
) -> AsyncIterator[Installation]:
    """Make the tables and store both sources, where they are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    database_url = addresses.database or f"sqlite:///{directory / 'spool.db'}"
    await migrate(database_url)
    async with AsyncExitStack() as stack:
        database = await open_database(database_url, clock=CLOCK, connections=4)
        stack.push_async_callback(database.close)
        storage, journal = await _open_storage(directory, addresses, database)
        stack.push_async_callback(storage.close)
        stranger: Stranger = LocalStranger(directory)
        if addresses.bus is not None:
            await stack.enter_async_context(broker_turn(addresses.bus))
            rabbit = await RabbitStranger.open(addresses.bus)
            stack.push_async_callback(rabbit.close)
            stranger = rabbit
        await _store_sources(storage, footage)
        await stranger.listen()  # from now on
        yield Installation(addresses, directory, footage, database, storage, journal, stranger)


async def _open_storage(
    directory: Path, addresses: Addresses, database: Database
) -> tuple[Storage, UploadJournal]:
    if addresses.storage is None:
        root = directory / "media"
        storage = await FileStorage.open(
            root, public_url="http://127.0.0.1", signing_key=b"k" * 32, clock=CLOCK
        )
        return storage, UploadJournal(database, root.as_uri())
    journal = UploadJournal(database, S3Address.parse(addresses.storage).name)
    return await S3Storage.open(addresses.storage, journal=journal), journal


async def _store_sources(storage: Storage, footage: Footage) -> None:
    stored = {found.key async for found in storage.walk("recordings/")}
    for recording in footage.pair:
        key = f"recordings/{recording.path.name}"
        if key not in stored:
            async with storage.writer(key, WriteOptions(content_type="video/mp4")) as writer:
                await writer.write(await asyncio.to_thread(recording.path.read_bytes))
