"""How the services of one process start, drain and stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import ChainMap
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from fastapi import APIRouter
from structlog.contextvars import bound_contextvars

from shared.database.notifying import READY_WORK
from shared.inbox.claims import LeaseTimes
from shared.inbox.router import Router
from shared.inbox.worker import Worker
from shared.kernel.errors import Transient
from shared.outbox.writing import append
from shared.runtime.api_key import KeyRing
from shared.runtime.dead_letter_routes import dead_letter_router
from shared.runtime.dead_letters import DeadLetters
from shared.runtime.event_routes import event_router
from shared.runtime.heap import settled_heap
from shared.runtime.housekeeping import housekeeping
from shared.runtime.http import Server, build_app
from shared.runtime.lending_routes import lending_router
from shared.runtime.scheduler import Tick, run_ticks
from shared.runtime.wiring import Lending, Platform
from shared.runtime.work_routes import Progress, work_router

log = structlog.get_logger()

HTTP_GRACE_S = 3  # for requests under way when everything else has ended
CHECK_S = 3  # a dependency that needs longer to say that it is there is not
FLUSH_S = 5  # for telling what the last work committed; the rest is told after the next start


@dataclass(frozen=True, slots=True)
class Service:
    """A service, put together: what it listens to, its HTTP routes, what it does by the clock.

    `progress` tells of some types of event how far the work is.
    """

    router: Router
    http: APIRouter | None = None
    ticks: tuple[Tick, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)


class Process:
    """Services that run together in one process, on one platform."""

    def __init__(
        self,
        services: Sequence[Service],
        platform: Platform,
        *,
        keys: KeyRing,
        lending: Lending,
        listener: socket.socket,
    ) -> None:
        """Prepare; nothing runs yet. `listener` is bound, and is closed at the end."""
        self._services = services
        self._platform = platform
        self._listener = listener
        self._draining = asyncio.Event()
        self._workers = [self._worker(service) for service in services]
        self._dead_letters = DeadLetters(platform.database, told=platform.relay.wake, changed=self._wake)
        routers = [service.http for service in services if service.http]
        app = build_app([*routers, *self._own_routers(lending)], keys=keys, readiness=self._problems)
        self._server = Server(app, grace_s=HTTP_GRACE_S)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGTERM, SIGINT or cancellation, and drain. Raises what ended it otherwise.

        Stops in this order: not ready, nothing new taken, work finished or given back, outbox told, HTTP.
        A second signal ends the grace: what is being done is given back at once.
        """
        await self._platform.bus.declare(
            [s for service in self._services for s in service.router.subscriptions]
        )
        # In every line of what runs below.
        name = self._platform.name
        with settled_heap(), bound_contextvars(worker=name), _stop_signals() as stops:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(part) for part in self._background()]
                workers = [group.create_task(worker.run()) for worker in self._workers]
                serving = group.create_task(self._server.serve(sockets=[self._listener]))
                on_ready()
                log.info("service.ready", services=self._names)
                try:
                    await stops.once.wait()
                finally:
                    self._draining.set()
                    await self._drain(stops.twice)
                    self._server.stop()
                    await asyncio.wait([*workers, serving])
                    for task in background:
                        task.cancel()
        log.info("service.stopped", worker=name)

    @property
    def _names(self) -> list[str]:
        return [service.router.service for service in self._services]

    def _worker(self, service: Service) -> Worker:
        platform = self._platform
        return Worker(
            service.router,
            bus=platform.bus,
            database=platform.database,
            clock=platform.clock,
            append=append,
            name=platform.name,
            committed=platform.relay.told,
            diagnose=self._away,
            times=LeaseTimes.of(platform.settings.lease_s * 1000),
            checkpoint=platform.checkpoint,
        )

    def _own_routers(self, lending: Lending) -> list[APIRouter]:
        platform = self._platform
        progress = dict(ChainMap(*(dict(service.progress) for service in self._services)))
        return [
            event_router(platform.database, platform.clock, told=platform.relay.wake, ended=self._draining),
            work_router(platform.database, changed=self._wake, progress=progress),
            dead_letter_router(self._dead_letters),
            lending_router(platform.storage, platform.clock, signing_key=lending.signing_key),
        ]

    def _background(self) -> Iterator[Coroutine[None, None, None]]:
        platform = self._platform
        yield platform.relay.run()
        yield platform.database.listen(READY_WORK, self._wake)
        yield self._dead_letters.observe(self._names, platform.clock)
        ticks = [*housekeeping(platform.database, keep_hours=platform.settings.keep_hours)]
        ticks += [tick for service in self._services for tick in service.ticks]
        yield run_ticks(ticks, platform.database, worker=platform.name)

    def _wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    async def _drain(self, hurried: asyncio.Event) -> None:
        log.info("service.draining")
        grace_s = self._platform.settings.drain_grace_s
        hurrying = asyncio.create_task(self._hurry(hurried), name="hurry")
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(worker.drain(grace_s))
        finally:
            hurrying.cancel()
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._platform.relay.flush()
        except (Transient, TimeoutError) as error:
            log.warning("service.outbox_not_flushed", reason=str(error) or "it took too long")

    async def _hurry(self, asked: asyncio.Event) -> None:
        await asked.wait()
        log.warning("service.hurried")
        for worker in self._workers:
            worker.hurry()

    async def _problems(self) -> dict[str, str]:
        """Return what keeps this process from working, by part."""
        if self._draining.is_set():
            return {"service": "is draining"}
        problems: dict[str, str] = {}
        health = self._platform.bus.health()
        if not (health.connected and health.consuming):
            problems["bus"] = health.reason or "is not connected"
        problems |= await self._away()
        for worker in self._workers:
            for queue, because in worker.paused().items():
                problems[queue] = f"takes nothing: {because}"
        return problems

    async def _away(self) -> dict[str, str]:
        """Return what is away of that which handlers need. The bus is not: what they tell waits for it."""
        checks = {"database": self._platform.database.now_ms, "storage": self._platform.storage.check}
        away: dict[str, str] = {}
        for part, check in checks.items():
            try:
                async with asyncio.timeout(CHECK_S):
                    await check()
            except (Transient, TimeoutError) as error:
                away[part] = str(error) or "does not answer in time"
        return away


@dataclass(frozen=True, slots=True)
class _Stops:
    """How often this process was asked to stop."""

    once: asyncio.Event = field(default_factory=asyncio.Event)
    twice: asyncio.Event = field(default_factory=asyncio.Event)

    def again(self) -> None:
        (self.twice if self.once.is_set() else self.once).set()


@contextmanager
def _stop_signals() -> Iterator[_Stops]:
    """Yield what SIGTERM and SIGINT set: the second one says that there is no time for the grace."""
    stops = _Stops()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stops.again)
    try:
        yield stops
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
