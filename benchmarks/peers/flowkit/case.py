"""FlowKit with one worker and one coordinator process, on each of its databases."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.system import Service
from flowkit.wire.topology import Topology

HERE = Path(__file__).parent
FLOWKIT = Path(sys.executable).with_name("flowkit")
NODES = ("step", "nothing", "chatty", "wide", "leaf", "join")
WORKER_ALONE = frozenset({"nothing", "chatty"})  # kinds of work that are measured with the coordinator stopped


@dataclass(frozen=True)
class FlowKit:
    """One configuration of FlowKit.

    Args:
        store: ``sqlite`` or ``postgres``.
        client: whose AMQP to use instead of its own: one that ``benchmarks.clients`` knows.
        processes: of the worker.
        finished: runs that are in the store already, put there by copying this file of SQLite.
    """

    store: str = "sqlite"
    client: str | None = None
    processes: int = 1
    finished: Path | None = None

    @property
    def name(self) -> str:
        """A word for the command line."""
        client = f"-on-{self.client}" if self.client else ""
        processes = f"-{self.processes}" if self.processes > 1 else ""
        return f"flowkit-{self.store}{processes}{client}"

    @property
    def family(self) -> str:
        """Whose it is."""
        return "FlowKit"

    @property
    def title(self) -> str:
        """What a table calls it."""
        store = {"sqlite": "SQLite", "postgres": "PostgreSQL"}[self.store]
        processes = f", {self.processes} worker processes" if self.processes > 1 else ""
        client = f", AMQP by {self.client}" if self.client else ""
        return f"FlowKit on {store}{processes}{client}"

    @property
    def guarantees(self) -> str:
        """What it promises."""
        return "late acknowledgement, confirms, quorum queues; every step in a durable history"

    @property
    def kinds(self) -> frozenset[str]:
        """Of work that it can do."""
        return frozenset({"chain", "nothing", "chatty", "wide"})

    @property
    def app(self) -> str:
        """The module that sends work to it."""
        return "benchmarks.peers.flowkit.app"

    def python(self) -> Path:
        """The one that runs this."""
        return Path(sys.executable)

    def services(self, kind: str) -> Sequence[Service]:
        """The worker first: when the coordinator comes, what waits for it is already being measured."""
        program = [sys.executable, "-m", "benchmarks.clients", self.client] if self.client else [FLOWKIT]
        processes = ["--processes", str(self.processes)] if self.processes > 1 else []
        worker = Service(
            "worker", [*program, "worker", "--node", HERE / "nodes.py", *processes], ready="takes tasks of"
        )
        return [worker] if kind in WORKER_ALONE else [worker, Service("coordinator", [*program, "coordinator"])]

    def environment(self, ground: Ground, name: str, folder: Path, kind: str) -> Mapping[str, str]:
        """Its settings; all that are not here have their defaults."""
        del kind
        if self.finished is not None:
            (folder / "flowkit.db").write_bytes(self.finished.read_bytes())
        return {
            "FLOWKIT_BROKER_URL": ground.broker,
            "FLOWKIT_NAMESPACE": name,
            "FLOWKIT_STORE_URL": ground.database() if self.store == "postgres" else f"sqlite:///{folder}/flowkit.db",
            "FLOWKIT_NODES_DIR": str(HERE),
        }

    def queues(self, name: str) -> Iterable[str]:
        """All that it leaves on the broker."""
        topology = Topology(name)
        standing = (topology.starts, topology.commands, topology.results, topology.logs, topology.workers)
        return [
            queue.name
            for queue in (*standing, topology.dead, topology.unreadable, *(topology.tasks(node) for node in NODES))
        ]


FLOWKITS: tuple[FlowKit, ...] = (
    FlowKit("sqlite"),
    FlowKit("postgres"),
    FlowKit("sqlite", processes=2),
    FlowKit("postgres", processes=2),
)
CLIENTS = (FlowKit(client="aio-pika"), FlowKit(client="pika"))
