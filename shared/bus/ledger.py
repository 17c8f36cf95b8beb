"""The rows of the local bus in one SQLite file. Synchronous: only the one thread of the bus calls it.

A row is a message in one queue, from the commit of its publishing until it is acknowledged.
Who holds which row is not written down: one process owns the file, and its death gives all rows back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

from shared.bus.message import Message, Subscription
from shared.bus.port import Unroutable
from shared.kernel.errors import Conflict, Corrupt, SpoolError, Unavailable

SCHEMA_VERSION = 1
ROWS_PER_INSERT = 32  # the text of each number of rows is prepared once
MAX_AHEAD_BYTES = 1024 * 1024  # of bodies that are read before somebody asks for them
SLICE_PAGES = 256  # 1 MiB given back to the file system at once: a few milliseconds
WAL_BYTES = 32 * 1024 * 1024  # the log is cut back to this after a burst

_SCHEMA = """
CREATE TABLE binding (type TEXT NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (type, queue)) WITHOUT ROWID;
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: receivers go forward by it
    queue TEXT NOT NULL,
    message_id TEXT NOT NULL,
    content_type TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX message_in_queue ON message (queue, id);
"""
_ONE = "SELECT id, message_id, content_type, headers, body FROM message WHERE id = ?"
_NEXT = """
SELECT id, message_id, content_type, headers, body FROM message WHERE queue = ? AND id > ? ORDER BY id LIMIT ?
"""
_KEEP = "INSERT INTO message (queue, message_id, content_type, headers, body) VALUES "
_ROW = "(?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))"


class Row(NamedTuple):
    """One message in one queue. `headers` is a JSON object."""

    id: int
    message_id: str
    content_type: str
    headers: str
    body: bytes


class Ledger:
    """The open file. Every method but `run`, `shrink` and `close` is a job, run in a group by `run`."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file; None keeps everything in memory. Raises Unavailable, Corrupt, Conflict."""
        where = path or "memory"
        try:
            with ExitStack() as undo:
                self._connection = _connect(path)
                undo.callback(self._connection.close)
                self.last_former_id = self._number("SELECT coalesce(max(id), 0) FROM message")
                self.unused_pages = self._count_unused()  # pages of the file that hold nothing
                undo.pop_all()
        except sqlite3.OperationalError as error:
            raise Unavailable(f"the bus file {where} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"the bus file {where} is damaged: {error}") from error
        self.touched: set[str] = set()  # queues that got messages in the last group

    def run(self, jobs: Sequence[Callable[[], object]]) -> list[object]:
        """Run the jobs in one transaction and commit it: one wait for the disk, however many jobs.

        A job that refuses (raises a SpoolError before it wrote) fails alone: its error is its outcome.
        Raises Unavailable when nothing of the group was kept.
        """
        self.touched = set()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [_attempt(job) for job in jobs]
            self._connection.execute("COMMIT")
            self.unused_pages = self._count_unused()
        except sqlite3.Error as error:
            raise Unavailable(f"the bus file cannot be written: {error}") from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return outcomes

    def bind(self, subscriptions: Sequence[Subscription]) -> None:
        """Let every type of a subscription reach its queue from now on."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO binding (type, queue) VALUES (?, ?)",
            [(name, subscription.queue) for subscription in subscriptions for name in subscription.types],
        )

    def publish(self, messages: Sequence[Message]) -> list[str]:
        """Write one row per message and bound queue; return the types of facts that nobody wants.

        Raises Unroutable, before anything is written, when a mandatory message has no queue.
        """
        queues = {name: self._queues_of(name) for name in {message.type for message in messages}}
        for message in messages:
            if message.mandatory and not queues[message.type]:
                raise Unroutable(f"nobody is subscribed to {message.type}")

        rows = [
            (queue, message.id, message.content_type, to_json(message.headers).decode(), message.body)
            for message in messages
            for queue in queues[message.type]
        ]
        # Some at once: for each statement this thread hands the interpreter over, and waits for it again.
        for start in range(0, len(rows), ROWS_PER_INSERT):
            some = rows[start : start + ROWS_PER_INSERT]
            self._connection.execute(_KEEP + ", ".join([_ROW] * len(some)), [*chain.from_iterable(some)])
        self.touched.update(*queues.values())
        return [message.type for message in messages if not queues[message.type]]

    def fetch(
        self, queue: str, returned: Sequence[int], after: int, at_most: int, ahead: int = 0
    ) -> list[Row]:
        """Read up to `at_most` rows: those given back first, they are older, then those after `after`.

        Up to `ahead` more than that, but fewer where they are large.
        """
        rows = [row for row_id in returned[:at_most] for row in self._rows(_ONE, row_id)]
        bytes_left = MAX_AHEAD_BYTES
        for row in self._rows(_NEXT, queue, after, at_most + ahead - len(rows)):
            rows.append(row)
            bytes_left -= len(row.body)
            if len(rows) >= at_most and bytes_left <= 0:
                break
        return rows

    def look(self, queue: str) -> tuple[int, set[str]]:
        """Return how many messages are in the queue, and which types reach it."""
        bound = self._connection.execute("SELECT type FROM binding WHERE queue = ?", (queue,))
        (count,) = self._connection.execute(
            "SELECT count(*) FROM message WHERE queue = ?", (queue,)
        ).fetchone()
        return int(count), {name for (name,) in bound}

    def forget(self, row_ids: Sequence[int]) -> None:
        """Delete acknowledged rows."""
        # One statement: for each of many this thread would hand the interpreter over, and wait for it again.
        self._connection.execute(_FORGET, (to_json(list(row_ids)).decode(),))

    def shrink(self) -> None:
        """Give one slice of unused pages back to the file system."""
        try:
            # It frees one page per step, and of a statement without columns `execute` makes only one step.
            self._connection.executescript(f"PRAGMA incremental_vacuum({SLICE_PAGES})")
            # The file itself gets shorter when the log is written back into it.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.unused_pages = self._count_unused()
        except sqlite3.Error:
            self.unused_pages = 0  # only tidying: counted anew, and tried again, after the next group

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self._connection.close()

    def _queues_of(self, name: str) -> list[str]:
        found = self._connection.execute("SELECT queue FROM binding WHERE type = ?", (name,))
        return [queue for (queue,) in found]

    def _rows(self, query: str, *values: object) -> Iterator[Row]:
        with closing(self._connection.execute(query, values)) as cursor:
            for row in cursor:
                yield Row(*row)

    def _count_unused(self) -> int:
        return self._number("PRAGMA freelist_count")

    def _number(self, query: str) -> int:
        (number,) = self._connection.execute(query).fetchone()
        return int(number)


def _attempt(job: Callable[[], object]) -> object:
    try:
        return job()
    except SpoolError as refusal:
        return refusal


def _connect(path: Path | None) -> sqlite3.Connection:
    with ExitStack() as undo:
        connection = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=5.0)
        undo.callback(connection.close)
        # Has to come before the first table; later it would need a VACUUM of the whole file.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        # FULL also survives the loss of power, and with group commit costs nothing when busy (spec/bus.md).
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}").fetchone()
        _migrate(connection)
        undo.pop_all()
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version != 0:
        raise Conflict(f"the bus file has version {version}, this Spool knows {SCHEMA_VERSION}")
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
