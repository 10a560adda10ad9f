"""A coordinator and a worker as processes of their own, over a store and in a namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Program
from flowkit import Client

FLOWKIT = Path(sys.executable).with_name("flowkit")


@dataclass
class House:
    """What runs, and how to ask it.

    Args:
        broker: address of a RabbitMQ.
        store: address of a store.
        namespace: of its exchanges and queues.
        folder: has ``nodes.py``, and takes what the processes say.
    """

    broker: str
    store: str
    namespace: str
    folder: Path
    processes: dict[str, Program] = field(default_factory=dict)

    def client(self, *, listen: bool = True) -> Client:
        """A client for it."""
        return Client(self.broker, namespace=self.namespace, listen=listen)

    def begin(self, *verb: str, until: str) -> None:
        """Start a service, and return when it has said so."""
        log = self.folder / f"{self.namespace}-{verb[0]}.log"
        program = Program([FLOWKIT, *verb], folder=self.folder, log=log, environment=self._environment())
        self.processes[verb[0]] = program
        program.wait_said(until)

    def memory(self, which: str) -> dict[str, float]:
        """Megabytes that each process holds (``VmRSS``), or held at most (``VmHWM``)."""
        return {name: one.status(which) for name, one in self.processes.items()}

    def ask(self, *verb: str) -> float:
        """Seconds that a verb of the command line takes, from shell to prompt."""
        began = time.perf_counter()
        subprocess.run([FLOWKIT, *verb], env=os.environ | self._environment(), check=True, capture_output=True)
        return time.perf_counter() - began

    def end(self) -> None:
        """Stop everything in good order."""
        for process in self.processes.values():
            process.end()

    def _environment(self) -> dict[str, str]:
        return {
            "FLOWKIT_BROKER_URL": self.broker,
            "FLOWKIT_NAMESPACE": self.namespace,
            "FLOWKIT_STORE_URL": self.store,
            "FLOWKIT_NODES_DIR": str(self.folder),
        }


@contextmanager
def house(broker: str, store: str, namespace: str, folder: Path) -> Iterator[House]:
    """A coordinator and a worker of all nodes in ``folder/nodes.py``, at work."""
    made = House(broker, store, namespace, folder)
    with ExitStack() as stack:
        stack.callback(made.end)
        made.begin("coordinator", until="is ready")
        made.begin("worker", "--node", str(folder / "nodes.py"), until="takes tasks of")
        yield made
