"""A task queue beside FlowKit, in one configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.peers import venvs
from benchmarks.system import Service


@dataclass(frozen=True)
class Peer:
    """One configuration of a peer.

    Args:
        peer: its folder here, and the name of its package.
        how: which configuration: ``best`` or ``safe``.
        setting: processes, threads and pool, for the table.
        guarantees: what it promises so.
        worker: arguments of its worker for this Python.
        queues_of: what it adds to a name to make names of queues.
        can: work that this configuration is measured with.
    """

    peer: str
    how: str
    setting: str
    guarantees: str
    worker: Sequence[str]
    queues_of: Sequence[str] = ("",)
    can: frozenset[str] = frozenset({"chain", "nothing", "wide"})

    @property
    def name(self) -> str:
        """A word for the command line."""
        return f"{self.peer}-{self.how}"

    @property
    def family(self) -> str:
        """Whose it is."""
        return {"faststream": "FastStream"}.get(self.peer, self.peer.capitalize())

    @property
    def title(self) -> str:
        """What a table calls it."""
        return f"{self.family} {venvs.version(self.peer)}, {self.setting}"

    @property
    def kinds(self) -> frozenset[str]:
        """Of work that it can do."""
        return self.can

    @property
    def app(self) -> str:
        """The module that sends work to it."""
        return f"benchmarks.peers.{self.peer}.app"

    def python(self) -> Path:
        """The interpreter that has it."""
        return venvs.python_of(self.peer)

    def services(self, kind: str) -> Sequence[Service]:
        """Its worker."""
        del kind
        return [Service("worker", [self.python(), *self.worker])]

    def environment(self, ground: Ground, name: str, folder: Path, kind: str) -> Mapping[str, str]:
        """With a Redis where tasks are joined."""
        del name, folder
        redis = {"BENCH_REDIS": ground.redis} if kind == "wide" else {}
        return {"BENCH_SAFE": str(int(self.how == "safe")), **redis}

    def queues(self, name: str) -> Iterable[str]:
        """All that it leaves on the broker."""
        return [f"{name}{suffix}" for suffix in self.queues_of]
