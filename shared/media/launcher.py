"""Become ffmpeg, with limits on: the few lines that run between fork and exec, in a process of their own.

It is started by path (`python -I -S launcher.py …`), imports nothing of Spool and lives for some
milliseconds. A `preexec_fn` would do the same inside the forked copy of a process that has threads, where
any lock may be held for ever; `setpriv` and `prlimit` are not on every machine. Usage:

    launcher.py PARENT_PID CPU_S MEMORY_BYTES FILE_BYTES FD,FD,… PROGRAM [ARGUMENT …]

The descriptors FD,… become 3, 4, … in the given order, so that a command line can name them beforehand.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import sys

_FIRST_FD = 3  # after stdin, stdout and stderr
_MAX_FDS = 64  # open files of one ffmpeg: inputs, pipes, the output, shared libraries
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# The same on Linux (but for MIPS) and macOS. Importing `signal` takes a third of this program's time.
_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
LAUNCHER_EXIT = 125  # what `env` and `timeout` use for "failed before the program ran"


def _die_with(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies. Linux only: elsewhere the limits end it."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # The parent may have died before the kernel was asked.
    if os.getppid() != parent_pid:
        sys.exit(LAUNCHER_EXIT)


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, never above the hard one that this process already has."""
    allowed = resource.getrlimit(kind)[1]
    wanted = (soft, soft if hard is None else hard)
    resource.setrlimit(kind, wanted if allowed < 0 else (min(wanted[0], allowed), min(wanted[1], allowed)))


def _renumber(fds: list[int]) -> None:
    """Move the descriptors to 3, 4, …, first out of the way of each other."""
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD + len(fds)) for fd in fds]
    for position, fd in enumerate(aside):
        os.dup2(fd, _FIRST_FD + position, inheritable=True)
    for fd in fds:
        if fd >= _FIRST_FD + len(fds):
            os.close(fd)


def main(arguments: list[str]) -> None:
    """Set the limits and become the program."""
    parent_pid, cpu_s, memory_bytes, file_bytes = (int(word) for word in arguments[:4])
    _die_with(parent_pid)
    _renumber([int(word) for word in arguments[4].split(",") if word])

    # At the soft limit ffmpeg is asked (SIGXCPU), at the hard one it is killed.
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 2)
    # On Linux this counts every private writable page, so also what malloc takes by mmap. RLIMIT_AS would
    # count address space that is only reserved, of which each thread takes 64 MiB.
    _limit(resource.RLIMIT_DATA, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, _MAX_FDS)
    _limit(resource.RLIMIT_CORE, 0)

    # Python ignores these two, and what is ignored stays so through exec. None is SIG_DFL.
    libc = ctypes.CDLL(None)
    for number in (_SIGPIPE, _SIGXFSZ):
        libc.signal(number, None)
    os.execv(arguments[5], arguments[5:])  # noqa: S606 - becoming another program is what this file is for


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(LAUNCHER_EXIT)
