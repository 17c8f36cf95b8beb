"""When a subscription takes nothing, for how long, and who tries first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from shared.inbox.intake import FIRST_PAUSE_MS, LONGEST_PAUSE_MS, SEVERAL, Intake, Pause, next_pause
from shared.kernel.errors import Unavailable

ERROR = Unavailable("the store does not answer")
FREE = 4


@dataclass
class World:
    """A clock that is set by hand, and what is away."""

    away: dict[str, str] = field(default_factory=dict)
    monotonic: int = 1_000_000
    asked: int = 0

    def monotonic_ms(self) -> int:
        return self.monotonic

    def now_ms(self) -> int:
        return self.monotonic

    async def diagnose(self) -> Mapping[str, str]:
        self.asked += 1
        return self.away


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def intake(world: World) -> Intake:
    return Intake("clipper.clip_requested", world, world.diagnose)


async def pause(intake: Intake, world: World) -> None:
    world.away = {"storage": "does not answer"}
    assert await intake.is_outage(1, ERROR) is not None


@pytest.mark.parametrize(
    ("before", "dice", "length_ms", "wait_ms"),
    [
        pytest.param(None, 0.0, FIRST_PAUSE_MS, FIRST_PAUSE_MS, id="first"),
        pytest.param(2_000, 0.0, 4_000, 4_000, id="doubles"),
        pytest.param(2_000, 1.0, 4_000, 3_000, id="dice-take-up-to-a-quarter"),
        pytest.param(LONGEST_PAUSE_MS, 0.0, LONGEST_PAUSE_MS, LONGEST_PAUSE_MS, id="never-longer"),
    ],
)
def test_pauses_grow_to_a_bound(before: int | None, dice: float, length_ms: int, wait_ms: int) -> None:
    last = Pause(0, before, "storage") if before else None

    assert next_pause(last, now_ms=500, why="bus", dice=dice) == Pause(500 + wait_ms, length_ms, "bus")


async def test_all_hands_take_while_nothing_is_known_to_be_away(intake: Intake, world: World) -> None:
    assert await intake.room(FREE) == FREE
    assert world.asked == 0


async def test_nothing_is_taken_while_a_dependency_says_that_it_is_away(intake: Intake, world: World) -> None:
    await pause(intake, world)

    assert await intake.room(FREE) == 0
    assert intake.paused_because == "storage: does not answer"


async def test_one_object_that_cannot_be_had_is_no_outage(intake: Intake) -> None:
    judged = [await intake.is_outage(7, ERROR) for _ in range(2 * SEVERAL)]

    assert judged == [None] * len(judged)
    assert await intake.room(FREE) == FREE


async def test_several_in_a_row_that_find_it_away_are_an_outage_whatever_it_says(intake: Intake) -> None:
    judged = [await intake.is_outage(row_id, ERROR) for row_id in range(SEVERAL)]

    assert [each is None for each in judged] == [True] * (SEVERAL - 1) + [False]
    assert await intake.room(FREE) == 0
    assert intake.paused_because == "the store does not answer"


async def test_one_that_gets_through_between_them_shows_that_it_is_there(intake: Intake) -> None:
    for row_id in range(SEVERAL - 1):
        await intake.is_outage(row_id, ERROR)
    intake.ended(99, "done")

    assert await intake.is_outage(100, ERROR) is None


async def test_after_the_pause_a_dependency_that_is_still_away_is_asked_and_no_work_is_spent(
    intake: Intake, world: World
) -> None:
    await pause(intake, world)
    waits_ms = []
    for _ in range(8):
        world.monotonic += LONGEST_PAUSE_MS
        assert await intake.room(FREE) == 0
        left_ms = await intake.is_outage(2, ERROR)
        assert left_ms is not None
        waits_ms.append(left_ms)

    assert waits_ms[0] < waits_ms[-1] <= LONGEST_PAUSE_MS


async def test_one_hand_tries_first_and_the_others_follow_when_it_gets_through(
    intake: Intake, world: World
) -> None:
    await pause(intake, world)
    world.away = {}
    world.monotonic += FIRST_PAUSE_MS
    first = await intake.room(FREE)
    intake.begin(5)
    meanwhile = await intake.room(FREE)
    intake.ended(4, "done")  # begun before the pause: shows nothing
    still = await intake.room(FREE)
    intake.ended(5, "done")

    assert (first, meanwhile, still, await intake.room(FREE)) == (1, 0, 0, FREE)
    assert not intake.is_limited


async def test_one_that_tries_in_vain_makes_the_pause_longer(intake: Intake, world: World) -> None:
    await pause(intake, world)
    world.away = {}  # it says so itself, and yet nothing gets through
    world.monotonic += FIRST_PAUSE_MS
    await intake.room(FREE)
    intake.begin(5)
    left_ms = await intake.is_outage(5, ERROR)
    intake.ended(5, "unavailable")

    assert left_ms is not None
    assert left_ms > FIRST_PAUSE_MS
    assert await intake.room(FREE) == 0


@pytest.mark.parametrize("status", ["retried", "lost", "released", "cancelled"])
async def test_an_end_that_shows_nothing_lets_another_one_try(
    intake: Intake, world: World, status: str
) -> None:
    await pause(intake, world)
    world.away = {}
    world.monotonic += FIRST_PAUSE_MS
    await intake.room(FREE)
    intake.begin(5)
    intake.ended(5, status)

    assert await intake.room(FREE) == 1


async def test_work_under_way_that_fails_in_a_pause_is_given_back_and_does_not_lengthen_it(
    intake: Intake, world: World
) -> None:
    await pause(intake, world)
    asked = world.asked
    left_ms = [await intake.is_outage(row_id, ERROR) for row_id in (2, 3, 4)]

    assert all(left is not None and left <= FIRST_PAUSE_MS for left in left_ms)
    assert world.asked == asked
