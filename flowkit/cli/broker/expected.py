"""What should stand on the broker, as the verbs of ``flowkit broker`` take it from settings and options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.settings import Settings
    from flowkit.wire.topology import Part

NODE_QUEUES = typer.Option("--node", metavar="NAME", help="With the queue of this node too; may be repeated.")


def nodes_of(settings: Settings, named: Iterable[str]) -> list[str]:
    """Nodes that need queues: those that are named, and those of workers in the setting ``users``.

    Raises:
        UsageError: one of the names cannot be a node's.
    """
    from flowkit.wire import names
    from flowkit.wire.access import served

    given = list(named)
    for node in given:
        if not names.is_node(node):
            raise UsageError(f"--node {node!r}: expected the name of a node, {names.NODE}")
    return sorted({*given, *served(settings.logins)})


def parts_of(settings: Settings, named: Iterable[str]) -> tuple[Part, ...]:
    """All exchanges and queues that should stand, in an order that can be declared."""
    from flowkit.wire.topology import Topology

    topology = Topology(settings.namespace)
    return (*topology.standing, *(topology.tasks(node) for node in nodes_of(settings, named)))


def kind(part: Part) -> str:
    """``exchange`` or ``queue``."""
    from flowkit.wire.topology import Exchange

    return "exchange" if isinstance(part, Exchange) else "queue"
