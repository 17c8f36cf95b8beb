"""A directory for what a process keeps for a moment: gone when it ends, or when the next one starts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.kernel.errors import Refused
from shared.runtime.lock import held_directory


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Yield a directory of this process's own below `parent`; first remove those whose processes died."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in parent.iterdir():
        _remove_if_dead(left)
    own = Path(tempfile.mkdtemp(dir=parent))
    with held_directory(own):
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _remove_if_dead(directory: Path) -> None:
    try:
        with held_directory(directory):
            shutil.rmtree(directory, ignore_errors=True)
    except Refused:
        """Its process lives."""
