"""Which processes a process has started, and not yet seen end."""

from __future__ import annotations

import os
from pathlib import Path


def children_of(pid: int | None = None) -> set[int]:
    """Return the children of a process, of this one by default; a suite may have some of its own."""
    tasks = Path(f"/proc/{pid or os.getpid()}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}
