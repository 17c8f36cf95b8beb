"""Processes of Spool that are made to die: everything is imported once, and each victim is a fork of that.

`python -m tests.anomaly.victim SOCKET` takes orders as JSON lines and answers with JSON lines. A victim is
a real process of its own, forked before there is any event loop or thread, without the seconds that imports
take. Orphans of victims become children of this process, which can therefore say whether any are left.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.settings.settings import load_settings
from spool.serving import serve
from tests.anomaly.killing import KillPoint, Watch

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
_LOOK_S = 0.01


def main() -> None:
    """Serve one connection after another, for ever. At the end of each its victims end as well."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.freeze()  # what is shared with the forks is not written to
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            _serve(connection, libc)


def _serve(connection: socket.socket, libc: ctypes.CDLL) -> None:
    victims: set[int] = set()
    for line in _lines(connection, victims):
        order = json.loads(line)
        if order["do"] == "bear":
            pid = os.fork()
            if pid == 0:
                _live(order, libc)
            victims.add(pid)
            _tell(connection, born=pid)
        if order["do"] == "orphans":
            left = [_command_of(pid) for pid in _children() if pid not in victims]
            _tell(connection, orphans=left)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _lines(connection: socket.socket, victims: set[int]) -> Iterator[bytes]:
    """Yield what is asked, and tell who has died meanwhile."""
    rest = b""
    while True:
        if select.select([connection], [], [], _LOOK_S)[0]:
            received = connection.recv(1 << 16)
            if not received:
                return
            *whole, rest = (rest + received).split(b"\n")
            yield from whole
        for pid, status in _ended():
            if pid in victims:
                victims.discard(pid)
                _tell(connection, died=pid, code=os.waitstatus_to_exitcode(status))


def _ended() -> Iterator[tuple[int, int]]:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, status


def _children() -> Iterator[int]:
    """Yield who has this process as its parent: victims, and what they left behind."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            with suppress(OSError):
                fields = (directory / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == os.getpid() and fields[0] != "Z":
                    yield int(directory.name)


def _command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""


def _tell(connection: socket.socket, **words: object) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


def _live(order: dict[str, Any], libc: ctypes.CDLL) -> None:
    """Be a process of Spool; never return."""
    code = 70
    try:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, descriptor)
        random.seed()  # or all forks throw the same dice
        for name in [name for name in os.environ if name.startswith("SPOOL_")]:
            del os.environ[name]
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        point = KillPoint(*order["point"]) if order["point"] else None
        watch = Watch(point)
        asyncio.run(serve(load_settings(), services=("clipper",), seams=watch.seams()))
        print(json.dumps({"seen": watch.seen}), flush=True)
        code = 0
    finally:
        # Nothing may get past here, into the loop of orders of the process that this one was forked from.
        if code:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
