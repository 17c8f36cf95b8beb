"""The embedded bus: durable queues in a SQLite file of their own, receivers woken at once in process.

It cannot be shared: exactly one process holds the data directory (the lock is the runtime's business).
So rows are durable, and who holds which delivery is memory: whatever a former process had taken
and not acknowledged is ready again at open.

Group commit: jobs that come while a group is being written wait together and share the next commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from pydantic_core import from_json

from shared.bus.ledger import Ledger, Row
from shared.bus.limits import MAX_BODY_BYTES, check_size
from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Capabilities, Health, QueueState
from shared.kernel.errors import Bug, SpoolError, Unavailable

T = TypeVar("T")

MAX_GROUP = 256  # jobs that share a commit: beyond this the gain is gone and the wait grows
MAX_AHEAD = 128  # rows read before they are asked for: each reading waits for its turn in the thread
MAX_BATCH = 1000  # messages in one publish: one commit of well under a second
UNUSED_PAGES_KEPT = 1024  # 4 MiB of the file stay for the next burst instead of shrinking and growing


@dataclass(frozen=True, slots=True, eq=False)
class _Hold:
    """One handing out of a row: the receipt of an earlier one must not settle it."""

    row_id: int


@dataclass(slots=True)
class _Queue:
    """What this process knows of a queue besides its rows."""

    reached: int = 0  # every row up to here was handed out, or is in `ahead` or `returned`
    ahead: deque[Row] = field(default_factory=deque)  # read already, to be handed out next
    taken: dict[int, _Hold] = field(default_factory=dict)  # handed out, neither acknowledged nor given back
    returned: set[int] = field(default_factory=set)  # given back, to be handed out first
    again: set[int] = field(default_factory=set)  # taken or returned rows that were given back before
    news: asyncio.Event = field(default_factory=asyncio.Event)  # something to receive, or room for it
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one reader at a time keeps the order


@dataclass(slots=True)
class _Job:
    work: Callable[[], object]
    outcome: asyncio.Future[object]


class LocalBus:
    """A bus inside this process. Open it with `LocalBus.open`."""

    def __init__(
        self, ledger: Ledger, thread: ThreadPoolExecutor, *, durable: bool, unrouted: Callable[[str], None]
    ) -> None:
        """Take over an open ledger and the only thread that may touch it."""
        self._ledger = ledger
        self._thread = thread
        self._durable = durable
        self._unrouted = unrouted
        self._queues: dict[str, _Queue] = {}
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._receiving = True
        self._closing = False
        self._writer = asyncio.create_task(self._write(), name="local-bus-writer")

    @classmethod
    async def open(cls, path: Path | None, *, unrouted: Callable[[str], None] | None = None) -> LocalBus:
        """Open the queues in the file at `path`, or in memory for tests when it is None.

        `unrouted` is told the type of each fact that nobody is subscribed to.
        Raises Unavailable, Corrupt when the file is damaged, Conflict when another version wrote it.
        """
        with ExitStack() as undo:
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-bus")
            undo.callback(thread.shutdown, wait=False)
            ledger = await asyncio.get_running_loop().run_in_executor(thread, Ledger, path)
            undo.pop_all()
        return cls(ledger, thread, durable=path is not None, unrouted=unrouted or _nobody_counts)

    @property
    def capabilities(self) -> Capabilities:
        """In memory nothing survives; in a file everything that was confirmed does."""
        return Capabilities(
            system="local",
            max_body_bytes=MAX_BODY_BYTES,
            max_batch=MAX_BATCH,
            survives_restart=self._durable,
            shared_between_processes=False,
        )

    async def declare(self, subscriptions: Sequence[Subscription]) -> None:
        """Bind the queues to their types."""
        await self._run(partial(self._ledger.bind, tuple(subscriptions)))
        for subscription in subscriptions:
            self._queues.setdefault(subscription.queue, _Queue())

    async def publish(self, messages: Sequence[Message]) -> None:
        """Keep all messages in one commit, or none of them."""
        for message in messages:
            check_size(message)
        if not messages:
            return
        for name in await self._run(partial(self._ledger.publish, tuple(messages))):
            self._unrouted(name)

    async def receive(self, subscription: Subscription, *, at_most: int, wait_s: float) -> list[Delivery]:
        """Hand over the oldest rows first. Nothing is written for it, so cancelling it loses nothing."""
        queue = self._declared(subscription)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while self._receiving:
            queue.news.clear()
            if deliveries := await self._take(subscription, queue, at_most):
                return deliveries
            try:
                async with asyncio.timeout_at(deadline):
                    await queue.news.wait()
            except TimeoutError:
                return []
        return []

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Delete the rows. A delivery of a former process, or one that was given back, is skipped."""
        held = list(self._held(deliveries))
        if not held:
            return
        forgotten = self._submit(partial(self._ledger.forget, [hold.row_id for _, hold in held]))
        for queue, hold in held:
            del queue.taken[hold.row_id]
        # Not after the await: who waits there may be cancelled, which changes nothing for the rows.
        forgotten.add_done_callback(partial(_settle_held, held))
        await asyncio.shield(forgotten)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put the rows at the head of their queues again."""
        for queue, hold in self._held(deliveries):
            del queue.taken[hold.row_id]
            queue.returned.add(hold.row_id)
            queue.again.add(hold.row_id)
            queue.news.set()

    async def stop_receiving(self) -> None:
        """Let every receiver return empty-handed, those that wait as well."""
        self._receiving = False
        for queue in self._queues.values():
            queue.news.set()

    def health(self) -> Health:
        """Say that it is connected for as long as the writer lives."""
        if self._writer.done() or self._closing:
            return Health(connected=False, consuming=False, reason="the local bus is closed")
        held = sum(len(queue.taken) for queue in self._queues.values())
        if not self._receiving:
            return Health(connected=True, consuming=False, reason="receiving has been stopped", held=held)
        return Health(connected=True, consuming=True, held=held)

    async def inspect(self, subscription: Subscription) -> QueueState:
        """Count the rows. A queue is nothing but its bindings: without any it does not exist."""
        count, bound = await self._run(partial(self._ledger.look, subscription.queue))
        queue = self._queues.get(subscription.queue, _Queue())
        return QueueState(
            queue=subscription.queue,
            called=subscription.queue,
            exists=bool(bound) or not subscription.types,
            ready=count - len(queue.taken),
            taken=len(queue.taken),
            unheard=tuple(sorted(set(subscription.types) - bound)),
        )

    async def close(self) -> None:
        """Finish what was begun, then close the file."""
        if self._closing:
            return
        await self.stop_receiving()
        self._closing = True
        self._wake.set()
        await self._writer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.close)
        self._thread.shutdown(wait=False)

    def _declared(self, subscription: Subscription) -> _Queue:
        if (queue := self._queues.get(subscription.queue)) is None:
            raise Bug(f"{subscription.queue} was not declared before receiving from it")
        return queue

    def _held(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[_Queue, _Hold]]:
        """Yield those that this bus holds now, and nothing that was settled or belongs to a former bus."""
        for delivery in deliveries:
            queue = self._queues.get(delivery.queue)
            hold = cast("_Hold", delivery.receipt)
            if queue is not None and queue.taken.get(hold.row_id) is hold:
                yield queue, hold

    async def _take(self, subscription: Subscription, queue: _Queue, at_most: int) -> list[Delivery]:
        async with queue.turn:
            room = min(at_most, subscription.hands - len(queue.taken))
            if room <= 0:
                return []
            if queue.returned or not queue.ahead:
                await self._read(subscription.queue, queue, room)
            # From here on no await: what is marked as taken is handed over.
            rows = [queue.ahead.popleft() for _ in range(min(room, len(queue.ahead)))]
            for row in rows:
                queue.taken[row.id] = _Hold(row.id)
            return [self._delivery(subscription.queue, queue, row) for row in rows]

    async def _read(self, name: str, queue: _Queue, room: int) -> None:
        """Read what was given back; where nothing is ahead, also what comes next, and some more of that."""
        returned = sorted(queue.returned)[:room]
        at_most, ahead = (len(returned), 0) if queue.ahead else (room, MAX_AHEAD)
        fetch = partial(self._ledger.fetch, name, returned, queue.reached, at_most, ahead)
        rows = await self._run(fetch)
        queue.returned.difference_update(returned)
        queue.ahead.extendleft(reversed(rows))
        queue.reached = max([queue.reached, *(row.id for row in rows)])

    def _delivery(self, name: str, queue: _Queue, row: Row) -> Delivery:
        return Delivery(
            message_id=row.message_id,
            queue=name,
            body=row.body,
            content_type=row.content_type,
            headers=from_json(row.headers),
            # A row of a former process may have been handed out there.
            redelivered=row.id in queue.again or row.id <= self._ledger.last_former_id,
            receipt=queue.taken[row.id],
        )

    async def _run(self, work: Callable[[], T]) -> T:
        """Let the writer do `work` and wait until it is committed."""
        return cast("T", await self._submit(work))

    def _submit(self, work: Callable[[], object]) -> asyncio.Future[object]:
        """Hand `work` to the writer; the future is done when it is committed, or was not."""
        if self._closing or self._writer.done():
            raise Unavailable("the local bus is closed")
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wake.set()
        return job.outcome

    async def _write(self) -> None:
        """Commit group after group until the bus closes; tidy the file when there is nothing to do."""
        try:
            while self._jobs or not self._closing:
                self._wake.clear()
                if self._jobs:
                    await self._write_group()
                elif not await self._tidied():
                    await self._wake.wait()
        finally:
            for job in self._jobs:
                _settle(job, Unavailable("the local bus has stopped"))
            self._jobs.clear()

    async def _write_group(self) -> None:
        group: list[_Job] = []
        outcomes: list[object] = []
        try:
            outcomes = await self._in_thread(partial(self._run_group, group))
        except Unavailable as error:
            outcomes = [Unavailable(error.message) for _ in group]
        finally:
            # A bug in the thread ends the writer: nobody may be left waiting for it.
            outcomes = outcomes or [Unavailable("the local bus has stopped")] * len(group)
            for job, outcome in zip(group, outcomes, strict=True):
                _settle(job, outcome)
        for name in self._ledger.touched & self._queues.keys():
            self._queues[name].news.set()

    def _run_group(self, group: list[_Job]) -> list[object]:
        """Fill the group and run it, in the thread: until it has its turn, the loop may bring more."""
        group += [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_GROUP))]
        return self._ledger.run([job.work for job in group])

    async def _tidied(self) -> bool:
        """Give back one slice of the file when much of it is unused; say whether that was so."""
        if self._ledger.unused_pages <= UNUSED_PAGES_KEPT:
            return False
        await self._in_thread(self._ledger.shrink)
        return True

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _settle_held(held: Sequence[tuple[_Queue, _Hold]], forgotten: asyncio.Future[object]) -> None:
    """Make room for the next, or hold on to what could not be forgotten."""
    failed = forgotten.cancelled() or forgotten.exception() is not None
    for queue, hold in held:
        if failed:
            queue.taken[hold.row_id] = hold
        else:
            queue.again.discard(hold.row_id)
            queue.news.set()


def _settle(job: _Job, outcome: object) -> None:
    if job.outcome.done():  # its caller was cancelled meanwhile
        return
    if isinstance(outcome, SpoolError):
        job.outcome.set_exception(outcome)
    else:
        job.outcome.set_result(outcome)


def _nobody_counts(_: str) -> None:
    """Stand in for the metric where nobody asked for one."""
