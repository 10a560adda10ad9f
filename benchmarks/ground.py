"""Where everything is measured: one private RabbitMQ, and a Redis and a PostgreSQL when somebody needs them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.processes import Program
from flowkit.broker import open_broker
from tests.services import postgres
from tests.services.rabbitmq import RabbitMQ, free_ports, install

# A server whose confirmed transactions outlive a power cut, which the one of the tests need not.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


@dataclass
class Ground:
    """Services with their addresses; those that are asked for first start then.

    Args:
        broker: address of a RabbitMQ.
        folder: for logs, records and stores of SQLite.
        stack: ends what was started.
    """

    broker: str
    folder: Path
    stack: ExitStack

    @cached_property
    def redis(self) -> str:
        """Address of a Redis that keeps nothing on disk: its fastest."""
        program = shutil.which("redis-server") or _installed_redis()
        (port,) = free_ports(1)
        said = self.folder / "redis.log"
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        server = Program(command, folder=self.folder, log=said, environment={})
        self.stack.callback(server.kill)
        server.wait_said("Ready to accept connections")
        return f"redis://127.0.0.1:{port}/0"

    @cached_property
    def postgres(self) -> str:
        """Address of a PostgreSQL that keeps what it has confirmed."""
        return self.stack.enter_context(postgres.server(DURABLE))

    def database(self) -> str:
        """A fresh database on it."""
        return self.stack.enter_context(postgres.database(self.postgres))

    def fresh(self, what: str) -> tuple[str, Path]:
        """A name that nothing has yet, and a folder for it."""
        name = f"{what}-{secrets.token_hex(3)}"
        folder = self.folder / name
        folder.mkdir()
        return name, folder

    def forget(self, queues: Iterable[str], folder: Path) -> None:
        """Delete queues and files of a case."""

        async def delete() -> None:
            broker = open_broker(self.broker)
            await broker.connect(10)
            for queue in queues:
                await broker.delete(queue)
            await broker.close()

        asyncio.run(delete())
        shutil.rmtree(folder)

    def versions(self) -> dict[str, str]:
        """Of the services that run."""
        found = {"RabbitMQ": _first(["/usr/lib/rabbitmq/bin/rabbitmqctl", "version"])}
        if "redis" in self.__dict__:
            found["Redis"] = _first(["redis-server", "--version"]).partition("v=")[2].split()[0]
        if "postgres" in self.__dict__:
            import psycopg

            with psycopg.connect(self.postgres) as connection:
                found["PostgreSQL"] = connection.execute("SHOW server_version").fetchone()[0].split()[0]  # type: ignore[index]
        return found


@contextmanager
def ground() -> Iterator[Ground]:
    """A private RabbitMQ and a temporary folder."""
    if not install():
        sys.exit("this needs RabbitMQ's own programs: apt-get install rabbitmq-server")
    with ExitStack() as stack:
        broker = RabbitMQ()
        stack.callback(broker.close)
        broker.start()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowkit-bench-")))
        yield Ground(broker.url, folder, stack)


def _installed_redis() -> str:
    command = ["apt-get", "install", "-qy", "--no-install-recommends", "redis-server"]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing Redis with apt-get …", file=sys.stderr)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for one in (["apt-get", "update", "-q"], command):
            subprocess.run(one, env=environment, capture_output=True, check=False)
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError(f"fan-out and join of the peers needs Redis: {' '.join(command)}")
    return found


def _first(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[0]
