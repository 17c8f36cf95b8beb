"""What stands as long as the process is not looked through by the garbage collector again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def settled_heap() -> Iterator[None]:
    """Keep what was imported and built so far out of every collection: a fifth of an event's processor time.

    What is made from here on is collected as ever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
