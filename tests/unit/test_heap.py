"""The heap of a process that has started."""

from __future__ import annotations

import gc
import weakref

from shared.runtime.heap import YOUNG_OBJECTS, settled_heap


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_stood_before_is_left_alone_and_what_comes_later_is_collected() -> None:
    before = weakref.ref(Knot())
    with settled_heap():
        frozen = gc.get_freeze_count()
        later = weakref.ref(Knot())
        gc.collect()

        assert (before(), later()) == (None, None)
    assert frozen > 0
    assert gc.get_freeze_count() == 0


def test_young_objects_are_looked_through_less_often_only_while_it_is_settled() -> None:
    before = gc.get_threshold()
    with settled_heap():
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
    assert gc.get_threshold() == before
