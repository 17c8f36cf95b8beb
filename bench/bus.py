"""Spool's bus and its whole road beside aio-pika and FastStream, in one run on one broker.

Every way is measured in each round, one after the other, so that what else the machine does meets all of
them; a ratio is the median of the rounds' own ratios. Needs RabbitMQ and PostgreSQL (SPOOL_TEST_AMQP,
SPOOL_TEST_POSTGRES), and starts them by `.ci/servers` where no address is given.

    python -m bench.bus [--quick] [--check]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench import peers
from bench.broker import Broker, new_database, opened_broker
from bench.report import Goal, Options, Report, read_options
from bench.roads import (
    embedded_idles,
    embedded_waits,
    road_embedded,
    road_on_servers,
    road_one_by_one,
    servers_idle,
    servers_wait,
    transport_consumes,
    transport_publishes,
)
from bench.servers import addresses
from bench.stage import Case, Played, Player, Way, conduct, play, players
from shared.observability.logging import configure_logging

PLAYER = "--player"
WARM_UP = 64  # events of each way before the first round: what is compiled and connected once is not measured


@dataclass(frozen=True, slots=True)
class Contest:
    """One line of the table: a way, how much of it is measured at once, and what it leaves."""

    title: str
    way: Way
    share: float = 1  # of the events of a round: slow ways are measured on fewer
    fills: bool = False  # takes requests from the queue
    tells: bool = False  # leaves an answer for each event
    players: int = 1


FASTSTREAM_CONSUMES = Contest("FastStream consumes", peers.faststream_consumes, fills=True)
FASTSTREAM_TELLS = Contest(
    "FastStream, confirmed publish in the handler", peers.faststream_tells, fills=True, tells=True
)
FASTSTREAM_PUBLISHES = Contest("FastStream publishes", peers.faststream_publishes, tells=True)
SPOOL_CONSUMES = Contest("Spool's transport consumes", transport_consumes, fills=True)
SPOOL_PUBLISHES = Contest("Spool's transport publishes", transport_publishes, tells=True)
ROAD = Contest("Spool's whole road, PostgreSQL", road_on_servers, fills=True, tells=True)
ONE_BY_ONE = Contest("the same, finished one by one", road_one_by_one, share=0.5, fills=True, tells=True)
ROAD_OF_TWO = Contest("the same in two processes", road_on_servers, fills=True, tells=True, players=2)
EMBEDDED = Contest("Spool's whole road, embedded", road_embedded)
CONTESTS = (
    FASTSTREAM_CONSUMES,
    Contest("aio-pika consumes", peers.aio_pika_consumes, fills=True),
    SPOOL_CONSUMES,
    FASTSTREAM_TELLS,
    ROAD,
    ONE_BY_ONE,
    ROAD_OF_TWO,
    EMBEDDED,
    FASTSTREAM_PUBLISHES,
    Contest("aio-pika publishes", peers.aio_pika_publishes, tells=True),
    SPOOL_PUBLISHES,
)
WAITING = {
    "FastStream": peers.faststream_waits,
    "Spool on RabbitMQ and PostgreSQL": servers_wait,
    "Spool embedded": embedded_waits,
}
IDLING = {"on RabbitMQ and PostgreSQL": servers_idle, "embedded": embedded_idles}
WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (*(each.way for each in CONTESTS), *WAITING.values(), *IDLING.values())
    if way not in peers.WAYS
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    events: int  # of a round, for the quicker ways
    arrivals: int  # for the latency
    idle_s: int
    strictness: float  # which share of a goal the check holds: a small run is full of noise


FULL = Size(rounds=5, events=3_000, arrivals=500, idle_s=20, strictness=1)
QUICK = Size(rounds=3, events=1_000, arrivals=100, idle_s=2, strictness=0.8)


class Bench:
    """One run: its places, its players, and what it found, way by way and round by round."""

    def __init__(
        self,
        broker: Broker,
        amqp: str,
        database: str,
        *,
        ensemble: Sequence[Player],
        guests: Sequence[Player],
    ) -> None:
        self._broker = broker
        self._amqp = amqp
        self._database = database
        self._ensemble = ensemble
        self._guests = guests  # who play the peers
        self.rates: dict[str, list[float]] = {contest.title: [] for contest in CONTESTS}
        self.told = 0  # answers that were published and confirmed
        self.astray: list[str] = []  # what was left over, or came twice

    async def round(self, events: int, *, counts: bool = True) -> None:
        """Measure every way once."""
        for contest in CONTESTS:
            number = max(1, round(events * contest.share))
            if contest.fills:
                await self._broker.fill(number)
            played = await self._play(contest.way, number, players=contest.players)
            left, told = await self._broker.settle()
            if (left, told) != (0, number * contest.tells) or played.done != number:
                self.astray.append(
                    f"{contest.title}: {left} left, {played.done} done, {told} told of {number}"
                )
            self.told += told
            if counts:
                self.rates[contest.title].append(number / played.seconds)

    async def waited_ms(self, way: Way, arrivals: int) -> list[float]:
        """Return how long each of the arrivals took from its publishing to its handler, in order."""

        async def meanwhile() -> None:
            if way is not embedded_waits:
                await self._broker.trickle(arrivals)

        played = await self._play(way, arrivals, meanwhile=meanwhile)
        await self._broker.settle()
        return sorted(each["age_ms"] for each in played.told)

    async def idle_percent(self, way: Way, seconds: int) -> float:
        """Return how much of one core is used by doing nothing."""
        played = await self._play(way, seconds)
        return float(played.told[0]["cpu_percent"])

    def ratio(self, contest: Contest, peer: Contest) -> float:
        """Return the median of the rounds' ratios."""
        pairs = zip(self.rates[contest.title], self.rates[peer.title], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    async def _play(
        self,
        way: Way,
        events: int,
        *,
        players: int = 1,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> Played:
        case = Case(way.__name__, events, self._amqp, self._database, self._broker.name)
        # Apart, so that the garbage collector of neither looks through what the other has imported.
        ensemble = self._guests if way in peers.WAYS else self._ensemble
        return await conduct(case, ensemble[:players], meanwhile=meanwhile)


def main(arguments: list[str]) -> int:
    # Nobody writes a line of log per event here, neither Spool nor FastStream.
    configure_logging(level="warning", as_json=True)
    if arguments == [PLAYER]:
        asyncio.run(play(WAYS))
        return 0
    options = read_options(__doc__ or "", arguments)
    with addresses("SPOOL_TEST_AMQP", "SPOOL_TEST_POSTGRES") as (amqp, postgres):
        return asyncio.run(run_bench(options, amqp, postgres)).finish(options)


async def run_bench(options: Options, amqp: str, postgres: str) -> Report:
    size = QUICK if options.quick else FULL
    async with (
        opened_broker(amqp) as broker,
        new_database(postgres) as database,
        players(2, "-m", "bench.bus", PLAYER) as ensemble,
        players(1, "-c", "from bench.peers import perform; perform()") as guests,
    ):
        bench = Bench(broker, amqp, database, ensemble=ensemble, guests=guests)
        await bench.round(WARM_UP, counts=False)
        for _ in range(size.rounds):
            await bench.round(size.events)
        latencies = {title: await bench.waited_ms(way, size.arrivals) for title, way in WAITING.items()}
        idle = {title: await bench.idle_percent(way, size.idle_s) for title, way in IDLING.items()}
    return report_of(bench, size, latencies, idle)


def report_of(bench: Bench, size: Size, latencies: dict[str, list[float]], idle: dict[str, float]) -> Report:
    report = Report("bus", notes=notes(size))
    report.notes += bench.astray
    report.rows = [row(bench, contest) for contest in CONTESTS]
    report.measures = {
        f"{title}: publish to handler at 50 events a second": {
            "p50_ms": percentile(found, 50),
            "p99_ms": percentile(found, 99),
            "arrivals": len(found),
        }
        for title, found in latencies.items()
    } | {f"an idle Spool {title}": {"cpu_percent": percent} for title, percent in idle.items()}
    report.goals = goals(bench, size)
    report.facts = {
        f"every event was done once, and each of {bench.told} answers told once": not bench.astray
    }
    return report


def goals(bench: Bench, size: Size) -> list[Goal]:
    def goal(
        name: str,
        ours: Contest,
        theirs: Contest,
        at_least: float,
        *,
        target: float | None = None,
        reached: float = 1,
    ) -> Goal:
        """`reached`: the share of a goal that is not reached yet which must not be lost again."""
        share = reached * size.strictness
        floor = at_least * share if share < 1 else None
        return Goal(name, bench.ratio(ours, theirs), at_least=at_least, target=target, floor=floor)

    bare = "FastStream's bare consume"
    telling = "FastStream with a confirmed publish and no database"
    return [
        goal("transport: consume to FastStream", SPOOL_CONSUMES, FASTSTREAM_CONSUMES, 1),
        goal("transport: publish to FastStream", SPOOL_PUBLISHES, FASTSTREAM_PUBLISHES, 1),
        goal(f"road on PostgreSQL to {bare}", ROAD, FASTSTREAM_CONSUMES, 0.25, target=0.45),
        goal(f"road on PostgreSQL to {telling}", ROAD, FASTSTREAM_TELLS, 1.2, target=2, reached=0.7),
        goal("finished together to one by one", ROAD, ONE_BY_ONE, 1.7),
        goal(f"road embedded to {bare}", EMBEDDED, FASTSTREAM_CONSUMES, 1, reached=0.5),
    ]


def notes(size: Size) -> list[str]:
    event = "one CloudEvent is 600 bytes of JSON, validated by pydantic"
    broker = (
        "quorum queues, prefetch 32, persistent and confirmed, a window of 128 for those who only publish"
    )
    stored = "received, stored, acknowledged, handled by a handler that returns one event, finished, relayed"
    return [
        f"{size.rounds} rounds; in each every way once, on {size.events} events or half as many",
        f"{event}; {broker}",
        f"of the road only answers count that were published and confirmed: {stored}",
    ]


def row(bench: Bench, contest: Contest) -> dict[str, str | float]:
    rates = bench.rates[contest.title]
    return {
        "way": contest.title,
        "events/s, median": statistics.median(rates),
        "slowest": min(rates),
        "quickest": max(rates),
        "to FastStream's consume": bench.ratio(contest, FASTSTREAM_CONSUMES),
    }


def percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
