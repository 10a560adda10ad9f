"""Every exchange and queue, spelled once.

Arguments of a standing queue cannot change once it is declared (any difference is a 406), so they are few; a change of
them needs a new name. Limits that operators tune belong into policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flowkit.errors import UsageError
from flowkit.wire import names

Argument = str | int
MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: Literal["direct", "topic", "fanout"]


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of ``exchange`` whose key matches ``key`` go to the queue that holds this."""

    exchange: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with all it is bound to. ``exclusive``: its connection's own, gone with it."""

    name: str
    arguments: tuple[tuple[str, Argument], ...] = ()
    bindings: tuple[Binding, ...] = ()
    exclusive: bool = False

    @property
    def stream(self) -> bool:
        """Whether it is a stream: read by offset, never emptied by reading."""
        return ("x-queue-type", "stream") in self.arguments


Part = Exchange | Queue


@dataclass(frozen=True)
class Topology:
    """The names of one namespace."""

    namespace: str = "flowkit"
    exchanges: tuple[Exchange, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not names.is_namespace(self.namespace):
            raise UsageError(f"namespace {self.namespace!r}: expected {names.NAMESPACE}, a word without dots")
        kinds: dict[str, Literal["direct", "topic", "fanout"]] = {
            "starts": "topic", "commands": "topic", "tasks": "direct", "results": "topic", "runs": "topic",
            "logs": "fanout", "workers": "fanout", "control": "fanout", "dead": "topic",
        }  # fmt: skip
        made = tuple(Exchange(self.name(short), kind) for short, kind in kinds.items())
        object.__setattr__(self, "exchanges", made)

    def name(self, *parts: str) -> str:
        """``flowkit.tasks.resize`` from ``("tasks", "resize")``."""
        return ".".join((self.namespace, *parts))

    @property
    def starts(self) -> Queue:
        """Start messages, for the coordinator."""
        return self._work(self.name("starts"), self.name("starts"), "#")

    @property
    def commands(self) -> Queue:
        """Commands, for the coordinator."""
        return self._work(self.name("commands"), self.name("commands"), "#")

    @property
    def results(self) -> Queue:
        """Results, for the coordinator; apart from starts, so that a flood of those cannot delay runs under way."""
        return self._work(self.name("results"), self.name("results"), "#")

    def tasks(self, node: str) -> Queue:
        """The queue of one node."""
        return self._work(self.name("tasks", node), self.name("tasks"), node, limit=100)

    @property
    def logs(self) -> Queue:
        """The log stream: history and live from one offset."""
        arguments: tuple[tuple[str, Argument], ...] = (
            ("x-queue-type", "stream"),
            ("x-max-length-bytes", 1024 * MiB),
            ("x-max-age", "7D"),
            # A stream is trimmed by whole segments; with the default of 500 MB it would hardly be bounded.
            ("x-stream-max-segment-size-bytes", 50 * MiB),
        )
        return Queue(self.name("logs"), arguments, (Binding(self.name("logs")),))

    @property
    def workers(self) -> Queue:
        """Announcements and heartbeats: small, bounded, worthless when old."""
        arguments: tuple[tuple[str, Argument], ...] = (("x-max-length", 10_000), ("x-message-ttl", 60_000))
        return Queue(self.name("workers"), arguments, (Binding(self.name("workers")),))

    @property
    def dead(self) -> Queue:
        """What could not be processed. It dead-letters once more, to a queue that nobody decodes."""
        arguments: tuple[tuple[str, Argument], ...] = (
            ("x-queue-type", "quorum"),
            ("x-delivery-limit", 5),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", self.name("unreadable")),
        )
        return Queue(self.name("dead"), arguments, (Binding(self.name("dead"), "#"),))

    @property
    def unreadable(self) -> Queue:
        """What even the reader of dead letters cannot hold in its hands."""
        return Queue(self.name("unreadable"), (("x-queue-type", "quorum"),))

    def control(self, worker: str) -> Queue:
        """One worker's own ear."""
        return Queue(self.name("control", worker), (), (Binding(self.name("control")),), exclusive=True)

    def announcements(self, listener: str, worker: str) -> Queue:
        """The exclusive queue in which one worker receives what all workers announce.

        Its name begins with that of the worker's control queue, which the rights of a worker allow it to declare.
        """
        return Queue(self.name("control", worker, listener), (), (Binding(self.name("workers")),), exclusive=True)

    def runs(self, listener: str, key: str = "#") -> Queue:
        """One waiting client's own ear for the ends of runs; ``key`` is ``<status>.<node>``."""
        return Queue(self.name("runs", listener), (), (Binding(self.name("runs"), key),), exclusive=True)

    @property
    def standing(self) -> tuple[Part, ...]:
        """All that stands without any node or client, in an order that can be declared."""
        queues = (self.unreadable, self.dead, self.starts, self.commands, self.results, self.logs, self.workers)
        return (*self.exchanges, *queues)

    def owner(self, store_id: str) -> Queue:
        """Its arguments name the store that owns this broker: the broker refuses (406) every other store's declaration.

        It holds one message and has no consumer: definitions that are imported again bring the queue, not the message.

        Args:
            store_id: at least 13 hexadecimal digits.
        """
        # RabbitMQ compares no arguments but those that it knows, and this one needs no right but to declare the queue.
        # 2^52 and above is no limit in practice; below 2^53 no tool that reads JSON rounds it.
        number = (1 << 52) + int(store_id[:13], 16)
        return Queue(self.name("store", "owner"), (("x-queue-type", "quorum"), ("x-max-length-bytes", number)))

    def marker(self, store_id: str | None = None) -> Exchange:
        """What earlier versions declared instead of ``owner``: some store has used this broker, or which one did."""
        parts = ("store",) if store_id is None else ("store", store_id)
        return Exchange(self.name(*parts), "fanout")

    def _work(self, name: str, exchange: str, key: str, limit: int = 10) -> Queue:
        arguments: tuple[tuple[str, Argument], ...] = (
            ("x-queue-type", "quorum"),
            # A backstop only: it counts bystanders of a crash too, so it never decides about a task.
            ("x-delivery-limit", limit),
            ("x-dead-letter-exchange", self.name("dead")),
            ("x-dead-letter-routing-key", name),
            # At least once needs reject-publish (RabbitMQ 3.10+); without a length limit nothing is ever rejected.
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        )
        return Queue(name, arguments, (Binding(exchange, key),))
