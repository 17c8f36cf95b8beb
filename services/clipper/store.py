"""The clipper's tables and queries: where sources are, what became of requests. Nobody else reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    and_,
    delete,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from services.clipper.domain.clip_outcome import Status
from services.clipper.domain.clip_plan import SourceSpan
from shared.database.engine import Connection, Database
from shared.database.inserting import insert_into
from shared.database.tables import RowId, metadata
from shared.events.clip import ClipOutcome, ClipRequested
from shared.events.source import SourceAvailable
from shared.inbox.outcome import WorldMoved, Write
from shared.inbox.wake import wake
from shared.kernel.clock import Clock
from shared.kernel.errors import Bug, Conflict, Permanent, Transient
from shared.kernel.timeline import TimeRange
from shared.media.port import Progress

MAX_SPANS = 2_000  # of one clip: a day of sources of a minute each, and some overlap

REPORT_EVERY_S = 1.0  # a person watches; a clip that is ready sooner needs no report at all
REQUESTED = "requested"
WORKING = "working"
UNDER_WAY_OR_THERE = (REQUESTED, WORKING, "available")

source_table = Table(
    "clipper_source",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("camera_id", String(128), nullable=False),
    Column("key", String(1024), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("size_bytes", BigInteger),
    Column("announced_ms", BigInteger, nullable=False),
    Index("clipper_source_key", "camera_id", "key", unique=True),
    Index("clipper_source_time", "camera_id", "start_ms", "end_ms"),
    sqlite_autoincrement=True,
)

clip_table = Table(
    "clipper_clip",
    metadata,
    Column("clip_id", String(128), primary_key=True),
    Column("camera_id", String(128), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("revision", Integer, nullable=False, default=1),
    Column("requested_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("progress_ms", BigInteger, nullable=False, default=0),
    Column("result", LargeBinary),  # the outcome's data as JSON
    Column("result_type", String(64)),
    Column("precision", String(16)),  # as it was asked for; none: as the clipper was set
    Index("clipper_clip_listing", "requested_ms", "clip_id"),
    Index("clipper_clip_camera", "camera_id", "requested_ms", "clip_id"),
)


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip that was asked for, and what became of it. `result` is the JSON of the outcome's data."""

    clip_id: str
    camera_id: str
    start_ms: int
    end_ms: int
    status: Status
    revision: int
    requested_ms: int
    updated_ms: int
    progress_ms: int
    result: bytes | None
    result_type: str | None
    precision: str | None = None

    def asks_for(self, request: ClipRequested) -> bool:
        """Whether `request` is the one that this row answers, not another under the same id."""
        asked = (request.camera_id, request.start_timestamp_in_ms, request.end_timestamp_in_ms)
        known = (self.camera_id, self.start_ms, self.end_ms)
        return (*asked, request.precision) == (*known, self.precision)


@dataclass(frozen=True, slots=True)
class Indexed:
    """A row of the index as it was read; announced again it is another."""

    id: int
    announced_ms: int


@dataclass(frozen=True, slots=True)
class ClipFilter:
    """Which clips to list. None leaves a filter out; `after` is the last clip of the page before."""

    camera_id: str | None = None
    status: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    after: tuple[int, str] | None = None


class Sources:
    """The index of sources, fed by `source_available` and `source_removed`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def overlapping(self, camera_id: str, wanted: TimeRange) -> list[SourceSpan]:
        """Return the camera's sources that show some of the range, by start. Raises Permanent: too many."""
        query = (
            select(source_table)
            .where(source_table.c.camera_id == camera_id)
            .where(source_table.c.start_ms < wanted.end_ms, source_table.c.end_ms > wanted.start_ms)
            .order_by(source_table.c.start_ms, source_table.c.key)
            .limit(MAX_SPANS + 1)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        if len(rows) > MAX_SPANS:
            raise Permanent(f"more than {MAX_SPANS} sources of {camera_id} show some of this range")
        return [SourceSpan(row.key, TimeRange(row.start_ms, row.end_ms), row.size_bytes) for row in rows]

    async def now_ms(self) -> int:
        """Return the database's clock, by which work waits for sources."""
        return await self._database.now_ms()

    async def find(self, camera_id: str, key: str) -> Indexed | None:
        """Return what the index has of a source."""
        query = select(source_table.c.id, source_table.c.announced_ms).where(
            source_table.c.camera_id == camera_id, source_table.c.key == key
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return Indexed(row.id, row.announced_ms) if row else None

    def forget(self, indexed: Indexed) -> Write:
        """Return the write that takes a source out of the index, unless it was announced again meanwhile."""

        async def write(connection: Connection) -> None:
            same = source_table.c.announced_ms == indexed.announced_ms
            await connection.execute(delete(source_table).where(source_table.c.id == indexed.id, same))

        return write

    def remember(self, source: SourceAvailable, *, end_ms: int) -> Write:
        """Return the write that puts a source into the index; announced again, it is corrected."""

        async def write(connection: Connection) -> None:
            values = {
                "start_ms": source.start_timestamp_in_ms,
                "end_ms": end_ms,
                "size_bytes": source.size_bytes,
                "announced_ms": self._clock.now_ms(),
            }
            await connection.execute(
                insert_into(connection, source_table)
                .values(camera_id=source.camera_id, key=source.key, **values)
                .on_conflict_do_update(index_elements=["camera_id", "key"], set_=values)
            )
            await wake(connection, sources_of(source.camera_id))

        return write


def sources_of(camera_id: str) -> str:
    """Return the wake key of work that waits for sources of a camera."""
    return f"sources of {camera_id}"


class Clips:
    """The clips that were asked for."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(self, clip_id: str) -> ClipRow | None:
        async with self._database.read() as connection:
            return await find_clip(connection, clip_id)

    async def page(self, wanted: ClipFilter, *, at_most: int) -> list[ClipRow]:
        """Return clips, the newest request first; stable while others are added."""
        query = select(clip_table).order_by(clip_table.c.requested_ms.desc(), clip_table.c.clip_id.desc())
        for condition in _conditions(wanted):
            query = query.where(condition)
        async with self._database.read() as connection:
            return [_clip_row(row) for row in (await connection.execute(query.limit(at_most))).all()]

    async def request(self, request: ClipRequested, *, tell: Write) -> ClipRow:
        """Write down a request and `tell` of it in one transaction, and return its row.

        A request that is under way or has its clip is only returned; one that ended without a clip is tried
        again. Raises Conflict when the id names another camera, range or precision.
        """

        async def write(connection: Connection) -> ClipRow:
            now_ms = self._clock.now_ms()
            seen = await find_clip(connection, request.clip_id)
            if seen and not seen.asks_for(request):
                message = (
                    f"clipId {request.clip_id} was used for another camera, range or precision; use a new id"
                )
                raise Conflict(message)
            if seen and seen.status in UNDER_WAY_OR_THERE:
                return seen
            await _open(connection, request, seen, requested_ms=now_ms, now_ms=now_ms)
            await tell(connection)
            return await _existing_clip(connection, request.clip_id)

        return await self._database.write(write)

    async def take_up(self, request: ClipRequested, *, requested_ms: int) -> ClipRow:
        """Let everyone see that a request which came by the bus is worked on, and return its row."""

        async def write(connection: Connection) -> ClipRow:
            seen = await find_clip(connection, request.clip_id)
            if seen and not seen.asks_for(request):
                raise WorldMoved("the id was given to another request in the meantime")
            if seen and seen.status in UNDER_WAY_OR_THERE:
                return seen
            now_ms = self._clock.now_ms()
            await _open(connection, request, seen, requested_ms=requested_ms, now_ms=now_ms)
            return await _existing_clip(connection, request.clip_id)

        return await self._database.write(write)

    async def report_progress(self, clip_id: str, progress_ms: int) -> None:
        """Let everyone see how far the clip is. Says nothing about one that has ended."""
        change = (
            update(clip_table)
            .where(clip_table.c.clip_id == clip_id, clip_table.c.status.in_((REQUESTED, WORKING)))
            .values(status=WORKING, progress_ms=progress_ms, updated_ms=self._clock.now_ms())
        )

        async def write(connection: Connection) -> None:
            await connection.execute(change)

        await self._database.write(write)

    async def progress(self, clip_ids: Sequence[str]) -> dict[str, str]:
        """Say of clips that are being made how far they are. Raises Unavailable."""
        table = clip_table.c
        made = select(table.clip_id, table.progress_ms, table.start_ms, table.end_ms).where(
            table.clip_id.in_(clip_ids), table.status == WORKING
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(made)).all()
        return {
            row.clip_id: f"{row.progress_ms / 1000:.1f} of {(row.end_ms - row.start_ms) / 1000:.1f} s"
            for row in rows
        }

    def conclude(self, outcome: ClipOutcome, status: Status, *, seen: ClipRow | None) -> Write:
        """Return the write that records how a request ended, if nobody else has since it was `seen`."""

        async def write(connection: Connection) -> None:
            now_ms = self._clock.now_ms()
            ended: dict[str, object] = {
                "status": status,
                "revision": outcome.revision,
                "updated_ms": now_ms,
                "result": outcome.model_dump_json(by_alias=True, exclude_none=True).encode(),
                "result_type": outcome.type,
            }
            if seen is None:
                await _insert_clip(connection, _asked(outcome) | ended | {"requested_ms": now_ms})
            else:
                await _conclude_clip(connection, seen, ended)

        return write


@asynccontextmanager
async def reported_progress(clips: Clips, clip_id: str) -> AsyncIterator[Progress]:
    """Yield a callback for the media engine, and store what it says until the context ends.

    A report that fails harms nothing: the clip goes on, and the next report tells more.
    """
    reached_ms = 0

    def progress(done_ms: int, _of_ms: int) -> None:
        nonlocal reached_ms
        reached_ms = done_ms

    async def report() -> None:
        reported_ms = -1
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if reached_ms != reported_ms:
                reported_ms = reached_ms
                await clips.report_progress(clip_id, reported_ms)

    # Not a TaskGroup: it would wrap what the handler has to tell apart.
    reporter = asyncio.create_task(report())
    try:
        yield progress
    finally:
        reporter.cancel()
        with suppress(asyncio.CancelledError, Transient):
            await reporter


async def find_clip(connection: Connection, clip_id: str) -> ClipRow | None:
    row = (await connection.execute(select(clip_table).where(clip_table.c.clip_id == clip_id))).first()
    return _clip_row(row) if row else None


async def _existing_clip(connection: Connection, clip_id: str) -> ClipRow:
    row = await find_clip(connection, clip_id)
    if row is None:
        raise Bug(f"the clip {clip_id} was written a moment ago and is not there")
    return row


async def _open(
    connection: Connection,
    request: ClipRequested,
    seen: ClipRow | None,
    *,
    requested_ms: int,
    now_ms: int,
) -> None:
    """Write down a new request, or let one that ended without a clip be tried again.

    Its last result stays until the next one.
    """
    opened: dict[str, object] = {"status": REQUESTED, "progress_ms": 0, "updated_ms": now_ms}
    if seen is None:
        fresh: dict[str, object] = {"revision": 1, "requested_ms": requested_ms}
        await _insert_clip(connection, _asked(request) | opened | fresh)
    else:
        same = clip_table.c.clip_id == request.clip_id
        await connection.execute(update(clip_table).where(same).values(**opened))


def _asked(request: ClipRequested | ClipOutcome) -> dict[str, object]:
    return {
        "clip_id": request.clip_id,
        "camera_id": request.camera_id,
        "start_ms": request.start_timestamp_in_ms,
        "end_ms": request.end_timestamp_in_ms,
        "precision": request.precision,
    }


async def _insert_clip(connection: Connection, values: dict[str, object]) -> None:
    insertion = insert_into(connection, clip_table).values(**values)
    inserted = await connection.execute(insertion.on_conflict_do_nothing(index_elements=["clip_id"]))
    if inserted.rowcount != 1:
        raise WorldMoved("the clip was asked for by somebody else in the meantime")


async def _conclude_clip(connection: Connection, seen: ClipRow, ended: dict[str, object]) -> None:
    change = (
        update(clip_table)
        .where(clip_table.c.clip_id == seen.clip_id, clip_table.c.revision == seen.revision)
        .where(clip_table.c.result_type.is_not_distinct_from(seen.result_type))
        .values(**ended)
    )
    if (await connection.execute(change)).rowcount != 1:
        raise WorldMoved("the clip was concluded by somebody else in the meantime")


def _conditions(wanted: ClipFilter) -> list[ColumnElement[bool]]:
    columns = clip_table.c
    conditions: list[ColumnElement[bool]] = []
    if wanted.camera_id is not None:
        conditions.append(columns.camera_id == wanted.camera_id)
    if wanted.status is not None:
        conditions.append(columns.status == wanted.status)
    if wanted.from_ms is not None:
        conditions.append(columns.end_ms > wanted.from_ms)
    if wanted.to_ms is not None:
        conditions.append(columns.start_ms < wanted.to_ms)
    if wanted.after is not None:
        requested_ms, clip_id = wanted.after
        same_moment = and_(columns.requested_ms == requested_ms, columns.clip_id < clip_id)
        conditions.append(or_(columns.requested_ms < requested_ms, same_moment))
    return conditions


def _clip_row(row: Row[tuple[object, ...]]) -> ClipRow:
    return ClipRow(**row._mapping)  # noqa: SLF001  # a public name with an underscore, against column names
