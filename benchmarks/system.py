"""What is measured: FlowKit, a peer, or the raw limit, in one configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from benchmarks.ground import Ground

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Service:
    """A program that a system consists of.

    Args:
        name: what it is called in a table.
        command: how it is started.
        ready: what it says when the next one may start; empty: at once.
    """

    name: str
    command: Sequence[str | Path]
    ready: str = ""


class System(Protocol):
    """One configuration of something that executes tasks."""

    @property
    def name(self) -> str:
        """A word for the command line, such as ``celery-safe``."""

    @property
    def family(self) -> str:
        """Whose it is, such as ``Celery``."""

    @property
    def title(self) -> str:
        """What a table calls it."""

    @property
    def guarantees(self) -> str:
        """What it promises in this configuration, for the column beside its figures."""

    @property
    def kinds(self) -> frozenset[str]:
        """Of work that it can do."""

    @property
    def app(self) -> str:
        """The module that sends work to it."""

    def python(self) -> Path:
        """The interpreter that has it; installed at the first call."""

    def services(self, kind: str) -> Sequence[Service]:
        """What executes work of this kind, in the order in which it starts."""

    def environment(self, ground: Ground, name: str, folder: Path, kind: str) -> Mapping[str, str]:
        """What its services and its app are told, beside ``BENCH_BROKER``, ``BENCH_NAME`` and ``BENCH_RECORD``."""

    def queues(self, name: str) -> Iterable[str]:
        """All that it leaves on the broker."""
