"""Servers that a test may break: RabbitMQ nodes and a PostgreSQL of its own, as processes on loopback.

The servers whose addresses are given are shared with other tests, and are never stopped. These are made from
the same packages (Debian's `rabbitmq-server` and `postgresql`), on free ports, in a directory under /tmp.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import asyncpg

START_S = 60.0
LOOK_S = 0.1  # between two looks whether a server answers
RABBITMQ = Path("/usr/lib/rabbitmq/bin")  # the wrappers in /usr/sbin would switch the user
COOKIE = "spool-anomaly"
ON_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
POSTGRESQL = Path("/usr/lib/postgresql")


def are_installed() -> bool:
    """Tell whether this machine has the packages."""
    return (RABBITMQ / "rabbitmq-server").exists() and any(POSTGRESQL.glob("*/bin/initdb"))


def free_ports(count: int) -> list[int]:
    """Return that many free ports of loopback."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


@dataclass(slots=True)
class RabbitNode:
    """One node of RabbitMQ. `name` is unique on its port mapper, which all nodes of a cluster share."""

    name: str
    directory: Path
    port: int
    distribution_port: int
    epmd_port: int
    more: tuple[str, ...] = ()  # lines of rabbitmq.conf
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def node(self) -> str:
        return f"{self.name}@localhost"

    async def start(self) -> None:
        """Start it, for the first time or again with what it kept, and wait until it takes connections."""
        (self.directory / "mnesia").mkdir(parents=True, exist_ok=True)
        lines = (f"listeners.tcp.1 = 127.0.0.1:{self.port}", *self.more)
        (self.directory / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines))
        (self.directory / "enabled_plugins").write_text("[].\n")
        command = [str(RABBITMQ / "rabbitmq-server")]
        self.process = run(command, self.directory, self._environment())
        async with asyncio.timeout(START_S):
            while not await self.answers():
                assert self.process.poll() is None, (self.directory / "out").read_text()[-3000:]
                await asyncio.sleep(LOOK_S)

    async def answers(self) -> bool:
        """Tell whether somebody listens."""
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False

    async def kill(self) -> None:
        """End it as a power failure would."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await ended(self.process)
        # What we started is a shell; the node itself is a child of it, and has not quite gone yet.
        while await self.answers():  # noqa: ASYNC110  # a listening port has no event
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        assert self.process is not None
        await self.control("stop")
        await ended(self.process)

    async def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node. Returns what it said."""
        process = await asyncio.create_subprocess_exec(
            RABBITMQ / "rabbitmqctl",
            "--quiet",
            "-n",
            self.node,
            "--erlang-cookie",
            COOKIE,
            *arguments,
            env=self._environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()

    async def join(self, other: RabbitNode) -> None:
        """Become a node of another one's cluster. What was here is gone."""
        await self.control("stop_app")
        await self.control("join_cluster", other.node)
        await self.control("start_app")

    def _environment(self) -> dict[str, str]:
        d = self.directory
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(d),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": f"{d}/mnesia",
            "RABBITMQ_LOG_BASE": f"{d}/log",
            "RABBITMQ_CONFIG_FILE": f"{d}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{d}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_PID_FILE": f"{d}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {COOKIE} {ON_LOOPBACK}",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


@contextmanager
def rabbit_nodes(count: int, *, more: tuple[str, ...] = ()) -> Iterator[list[RabbitNode]]:
    """Start that many nodes, each alone, and end them. `more` are lines of rabbitmq.conf.

    They belong to no event loop, so that tests with loops of their own can share them.
    """
    directory = Path(mkdtemp(prefix="spool-rabbit-"))
    epmd, *ports = free_ports(1 + 2 * count)
    nodes = [
        RabbitNode(f"n{number}", directory / f"n{number}", port, distribution_port, epmd, more)
        for number, (port, distribution_port) in enumerate(zip(ports[::2], ports[1::2], strict=True))
    ]
    try:
        asyncio.run(_all(node.start() for node in nodes))
        yield nodes
    finally:
        asyncio.run(_all(node.kill() for node in nodes))
        # The port mapper is a daemon that has left the group of the node that started it.
        environment = os.environ | {"ERL_EPMD_PORT": str(epmd)}
        subprocess.run(["epmd", "-kill"], env=environment, capture_output=True, check=False)
        shutil.rmtree(directory, ignore_errors=True)


async def _all(parts: Iterable[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part)


@dataclass(slots=True)
class PostgresServer:
    """A PostgreSQL whose data survives its restarts."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    async def make(self) -> None:
        """Make its data directory."""
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        arguments = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]
        code = await ended(self._run("initdb", "-D", f"{self.directory}/data", *arguments))
        assert code == 0, (self.directory / "out").read_text()

    async def start(self) -> None:
        """Start it, and wait until it answers: after a crash it recovers first."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
        arguments = [
            "-D",
            f"{self.directory}/data",
            "-p",
            str(self.port),
            "-k",
            str(self.directory),
            *options,
        ]
        self.process = self._run("postgres", *arguments)
        async with asyncio.timeout(START_S):
            while not await self._answers():
                assert self.process.poll() is None, (self.directory / "out").read_text()[-3000:]
                await asyncio.sleep(LOOK_S)

    async def stop_immediately(self) -> None:
        """End all its processes without a checkpoint, as `pg_ctl -m immediate stop` does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            await ended(self.process)

    async def _answers(self) -> bool:
        with suppress(OSError, asyncpg.PostgresError):
            connection = await asyncpg.connect(self.url, timeout=5)
            await connection.close()
            return True
        return False

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        binary = max(POSTGRESQL.glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3]))
        # PostgreSQL refuses to run as root.
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        command = [*(as_user if os.geteuid() == 0 else []), str(binary), *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LC_ALL": "C.UTF-8"}
        return run(command, self.directory, environment)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL, and remove it with its data. It belongs to no event loop either."""
    directory = Path(mkdtemp(prefix="spool-pg-"))  # short: a socket's path has at most 107 bytes
    directory.chmod(0o711)
    (port,) = free_ports(1)
    server = PostgresServer(directory, port)
    try:
        asyncio.run(server.make())
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.stop_immediately())
        shutil.rmtree(directory, ignore_errors=True)


def run(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that leads a group of its own; what it says goes into the file `out`."""
    with (directory / "out").open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process without holding up the loop. Returns its exit code."""
    while process.poll() is None:  # noqa: ASYNC110  # a process of no loop has no event
        await asyncio.sleep(LOOK_S)
    return process.returncode
