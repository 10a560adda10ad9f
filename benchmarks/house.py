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
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def client(self, *, listen: bool = True) -> Client:
        """A client for it."""
        return Client(self.broker, namespace=self.namespace, listen=listen)

    def begin(self, *verb: str, until: str) -> None:
        """Start a service, and return when it has said so."""
        log = self.folder / f"{self.namespace}-{verb[0]}.log"
        with log.open("wb") as said:  # no pipe: nobody would read it, and whoever writes would stand still
            process = subprocess.Popen([FLOWKIT, *verb], env=self._environment(), cwd=self.folder, stderr=said)
        self.processes[verb[0]] = process
        while process.poll() is None:
            if until in log.read_text():
                return
            time.sleep(0.05)
        raise RuntimeError(f"flowkit {verb[0]} ended without saying {until!r}: {log.read_text()}")

    def memory(self, which: str) -> dict[str, float]:
        """Megabytes that each process holds (``VmRSS``), or held at most (``VmHWM``)."""
        texts = {name: Path(f"/proc/{one.pid}/status").read_text() for name, one in self.processes.items()}
        return {name: int(text.partition(f"{which}:")[2].split()[0]) / 1024 for name, text in texts.items()}

    def ask(self, *verb: str) -> float:
        """Seconds that a verb of the command line takes, from shell to prompt."""
        began = time.perf_counter()
        subprocess.run([FLOWKIT, *verb], env=self._environment(), check=True, capture_output=True)
        return time.perf_counter() - began

    def end(self) -> None:
        """Stop everything in good order."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()

    def _environment(self) -> dict[str, str]:
        # With bytecode kept, as an installation has it: to compile FlowKit again takes longer than most verbs.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return kept | {
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
