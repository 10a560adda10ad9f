"""The raw limit beside which FlowKit is measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.peers.flowkit.case import WORKER_ALONE, FlowKit
from benchmarks.system import Service


@dataclass(frozen=True)
class Raw:
    """The bare data path with FlowKit's own messages."""

    name: str = "raw"
    family: str = "raw limit"
    title: str = "raw limit: bare data path"
    guarantees: str = "late acknowledgement, confirms, quorum queues; nothing is remembered"
    kinds: frozenset[str] = frozenset({"chain", "nothing", "wide"})
    app: str = FlowKit().app

    def python(self) -> Path:
        """The one that runs this."""
        return Path(sys.executable)

    def services(self, kind: str) -> Sequence[Service]:
        """Two processes, as FlowKit has them."""
        roles = ("worker",) if kind in WORKER_ALONE else ("worker", "coordinator")
        return [Service(role, [sys.executable, "-m", "benchmarks.raw.node", role], ready="ready") for role in roles]

    def environment(self, ground: Ground, name: str, folder: Path, kind: str) -> Mapping[str, str]:
        """Nothing more."""
        del ground, name, folder, kind
        return {}

    def queues(self, name: str) -> Iterable[str]:
        """FlowKit's."""
        return FlowKit().queues(name)


RAW = Raw()
