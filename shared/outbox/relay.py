"""What was committed is published: at least once, in order per subject, marked after the confirm.

A relay claims subjects, not rows, and has at most one unconfirmed event of each on the way. Events that are
published again after a crash keep their ids; receivers dedupe on them.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import structlog
from sqlalchemy import func, select

from shared.bus.message import Message, Numbered
from shared.bus.port import Bus, Unroutable
from shared.database.engine import Database
from shared.database.tables import outbox
from shared.kernel.checkpoint import Checkpoint, Step, pass_by
from shared.kernel.clock import Clock
from shared.kernel.errors import Permanent, SpoolError, Transient, Unavailable
from shared.observability.metrics import (
    OUTBOX_LAG,
    OUTBOX_UNSENT,
    PUBLISHED_MESSAGES,
    PUBLISHED_MESSAGES_EXCEPTIONS,
    PUBLISHED_MESSAGES_SECONDS,
    PUBLISHED_MESSAGES_SIZE,
)
from shared.observability.tracing import Hop, Role, hop, read_headers, recording
from shared.outbox.subjects import SUBJECTS_PER_CLAIM, Subjects, Turn
from shared.outbox.unsent import Unsent

log = structlog.get_logger()

LEASE_MS = 30_000
MARGIN_SHARE = 3  # in the last third of a lease nothing new is published under it
POLL_S = 1.0  # for what other processes commit
# A wake comes with the row, which can be before its commit: then looking once is too early.
SOON_S = (0.0, 0.005, 0.02, 0.08, 0.25)
MANY_SUBJECTS = 16  # in one round: so much is going on that the next round is worth waiting for
GATHER_S = 0.02  # what a disk takes for a commit or two
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
FIRST_BACKOFF_MS = 500  # of one subject whose command nobody has subscribed to
LONGEST_BACKOFF_MS = 60_000
UNROUTABLE_ATTEMPTS = 80  # about an hour of them: who starts a service after its callers has done so by then
SUBSCRIBE = "start the service that takes it, or declare its queue, and replay this"
OBSERVE_S = 10.0


def _as_it_is(message: Message) -> Message:
    return message


class Relay:
    """Publishes what the outbox holds. `run` it in a task; cancel it to stop, at any moment."""

    def __init__(
        self,
        *,
        bus: Bus,
        database: Database,
        clock: Clock,
        name: str,
        poll_s: float = POLL_S,
        lease_ms: int = LEASE_MS,
        checkpoint: Checkpoint = pass_by,
        form: Callable[[Message], Message | None] = _as_it_is,
    ) -> None:
        """`name` is this process's own, different from that of every other relay on the database.

        `form` is given each message before it is published, and keeps its id; None: send nothing.
        """
        self._bus = bus
        self._database = database
        self._clock = clock
        self._unsent = Unsent()
        self._subjects = Subjects(database, relay=name, lease_ms=lease_ms, unsent=self._unsent)
        self._lease_ms = lease_ms
        self._margin_ms = lease_ms // MARGIN_SHARE
        self._poll_s = poll_s
        self._checkpoint = checkpoint
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._form = form
        self._woken = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()  # `flush` comes while `run` goes on
        self._may_hold_leases = False  # of a round that failed: else its subjects waited for their end

    def told(self, events: Sequence[Numbered]) -> None:
        """Publish these soon: this process has just committed them."""
        self._unsent.keep(events)
        self.wake()

    def wake(self) -> None:
        """Look now, and again a moment later: something was or is about to be committed in this process.

        From any thread: on SQLite what is about to be committed is written in one of its own. In the loop's
        own thread nothing has to rouse it, which costs a system call for every event that is told.
        """
        if threading.get_ident() == self._thread:
            self._woken.set()
        else:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_for_ever())
            group.create_task(self._observe())

    async def flush(self) -> None:
        """Publish all that is due now. For the end of a drain. Raises Unavailable."""
        await self._publish_all(gathers=False)

    async def _publish_all(self, *, gathers: bool) -> bool:
        """Publish until nothing more comes; say whether there was anything. Raises Unavailable."""
        async with self._one_at_a_time:
            if self._may_hold_leases:
                await self._subjects.let_go()
            # Whatever fails from here on, a claim that was committed may be one that nobody here knows of.
            self._may_hold_leases = True
            claimed_ms = self._clock.monotonic_ms()
            first = turns = await self._subjects.claim()
            while turns:
                await self._take_turns(turns, claimed_ms, gathers=gathers)
                claimed_ms = self._clock.monotonic_ms()
                turns = await self._subjects.conclude_and_claim(turns, pause_ms=_backoff_ms)
                self._checkpoint(Step.MARKED)
            self._may_hold_leases = False
            return bool(first)

    async def _publish_for_ever(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            self._woken.clear()
            try:
                await self._look()
            except Transient as error:
                log.warning("outbox.waiting", reason=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                continue
            pause_s = FIRST_PAUSE_S
            await self._wait_for_wake()

    async def _look(self) -> None:
        """Publish until nothing more comes, looking a few times."""
        for moment_s in SOON_S:
            await asyncio.sleep(moment_s)
            if self._woken.is_set():
                return
            if await self._publish_all(gathers=True):
                return

    async def _wait_for_wake(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _take_turns(self, turns: Sequence[Turn], claimed_ms: int, *, gathers: bool) -> None:
        """Give each subject its turn. They are concluded by the caller, or here when it fails.

        Where much comes it `gathers` afterwards for the next round: a round costs all the same.
        Raises Unavailable.
        """
        stop_ms = claimed_ms + self._lease_ms - self._margin_ms
        whole = False
        try:
            while self._clock.monotonic_ms() < stop_ms:
                heads = [turn for turn in turns if turn.waiting and not turn.failed]
                if not heads:
                    break
                await self._publish_heads(heads)
            if gathers and MANY_SUBJECTS <= len(turns) < SUBJECTS_PER_CLAIM:
                await asyncio.sleep(GATHER_S)
            whole = True
        finally:
            # Also when the transport is away: what was confirmed is marked, and the subjects are free.
            if not whole:
                await self._subjects.conclude(turns, pause_ms=_backoff_ms)

    async def _publish_heads(self, turns: Sequence[Turn]) -> None:
        """Publish the oldest event of each subject. Raises Unavailable."""
        limit = self._bus.capabilities.max_batch
        for start in range(0, len(turns), limit):
            batch = turns[start : start + limit]
            try:
                await self._publish([turn.waiting[0] for turn in batch])
            except (Unroutable, Permanent) as error:
                log.debug("outbox.batch_failed", events=len(batch), reason=str(error))
                for turn in batch:
                    await self._publish_alone(turn)
                continue
            for turn in batch:
                turn.sent.append(turn.waiting.pop(0))

    async def _publish_alone(self, turn: Turn) -> None:
        """Find out which of a batch it was. The others are published again, with the same ids."""
        event = turn.waiting[0]
        try:
            await self._publish([event])
        except Unroutable as error:
            self._wait_for_subscriber(turn, error)
        except Permanent as error:
            self._give_up(turn, str(error))
        else:
            turn.sent.append(turn.waiting.pop(0))

    def _wait_for_subscriber(self, turn: Turn, error: Unroutable) -> None:
        """Let the command keep its place, for about an hour: what comes later must not come before it."""
        if turn.attempts >= UNROUTABLE_ATTEMPTS:
            self._give_up(turn, f"{error}: {SUBSCRIBE}")
            turn.attempts = 0  # the next command has its own hour
            return
        event = turn.waiting[0]
        turn.failed = True
        self._count([event.message], "unroutable")
        log.error("outbox.unroutable", **_names(turn, event), reason=str(error))

    def _give_up(self, turn: Turn, reason: str) -> None:
        """Make the event a dead letter of the outbox; its subject goes on."""
        event = turn.waiting.pop(0)
        turn.refused.append((event, reason))
        self._count([event.message], "refused")
        log.error("outbox.refused", **_names(turn, event), reason=reason)

    async def _publish(self, events: Sequence[Numbered]) -> None:
        messages = [formed for event in events if (formed := self._form(event.message))]
        if not messages:
            return
        system = self._bus.capabilities.system
        try:
            with PUBLISHED_MESSAGES_SECONDS.labels(system).time():
                await self._confirmed(messages)
        except SpoolError as error:
            PUBLISHED_MESSAGES_EXCEPTIONS.labels(system, type(error).__name__).inc()
            if not isinstance(error, Unroutable | Permanent):
                self._count(messages, "error")
            raise
        self._checkpoint(Step.PUBLISHED)
        self._count(messages, "success")
        size = PUBLISHED_MESSAGES_SIZE.labels(system)
        for message in messages:
            size.observe(len(message.body))

    async def _confirmed(self, messages: Sequence[Message]) -> None:
        try:
            with self._spans(messages) as traced:
                async with asyncio.timeout(self._margin_ms / 1000):
                    await self._bus.publish(traced)
        except TimeoutError as error:
            raise Unavailable("the transport does not confirm") from error

    @contextmanager
    def _spans(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """Give each message a span of its own, which its receiver goes on from, where spans are collected."""
        if not recording():
            yield messages
            return
        with ExitStack() as stack:
            spans = [stack.enter_context(self._span(message)) for message in messages]
            yield [
                replace(message, headers={**message.headers, **span.context.headers})
                for message, span in zip(messages, spans, strict=True)
            ]

    def _span(self, message: Message) -> Hop:
        return hop(
            f"publish {message.type}",
            Role.PRODUCER,
            parent=read_headers(message.headers),
            current=False,  # they are on their way together, none within another
            system=self._bus.capabilities.system,
            destination=message.type,
            operation="send",
            event_id=message.id,
            type=message.type,
            body_bytes=len(message.body),
        )

    def _count(self, messages: Iterable[Message], status: str) -> None:
        for event_type, number in Counter(message.type for message in messages).items():
            PUBLISHED_MESSAGES.labels(self._bus.capabilities.system, event_type, status).inc(number)

    async def _observe(self) -> None:
        unsent = select(func.count(), func.min(outbox.c.created_ms)).where(
            outbox.c.sent_ms.is_(None), outbox.c.refused.is_(None)
        )
        while True:
            try:
                async with self._database.read() as connection:
                    number, oldest_ms = (await connection.execute(unsent)).one()
            except Unavailable as error:
                log.debug("outbox.not_observed", reason=str(error))
            else:
                OUTBOX_UNSENT.set(number)
                age_ms = self._clock.now_ms() - oldest_ms if number else 0
                OUTBOX_LAG.set(max(0, age_ms) / 1000)
            await asyncio.sleep(OBSERVE_S)


def _backoff_ms(attempts: int) -> int:
    longest_ms: int = min(FIRST_BACKOFF_MS * 2 ** min(attempts, 20), LONGEST_BACKOFF_MS)
    return round(longest_ms * random.uniform(0.5, 1))  # noqa: S311  # jitter is no secret


def _names(turn: Turn, event: Numbered) -> dict[str, str | None]:
    """Return what a log line tells of an event, as those of the inbox do."""
    trace = read_headers(event.message.headers)
    return {
        "event_id": event.message.id,
        "type": event.message.type,
        "subject": turn.subject,
        "trace_id": trace.trace_id if trace else None,
    }
