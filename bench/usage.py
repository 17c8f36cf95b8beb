"""What a process and its children have used, as Linux counts it."""

from __future__ import annotations

import resource
from pathlib import Path


def cpu_s() -> float:
    """Return user and system time of this process and of all its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


# `ru_maxrss` of a process starts with that of whoever started it, so Linux is asked about this one only.
def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_now_mib() -> float:
    return _status_mib("VmRSS")


def peak_mib() -> float:
    return _status_mib("VmHWM")


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def peak_of_children_mib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
