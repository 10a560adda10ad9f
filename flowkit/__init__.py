"""Durable workflows of plain async functions on RabbitMQ.

The whole public face is here; each name is imported when it is first used, so that ``import flowkit`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.client import Client
    from flowkit.errors import Permanent
    from flowkit.log import Logger
    from flowkit.node import Node
    from flowkit.wire.items import Gather, Send, Wait

__all__ = ["Client", "Gather", "Logger", "Node", "Permanent", "Send", "Wait"]

_HOMES = {
    "Client": "flowkit.client",
    "Gather": "flowkit.wire.items",
    "Logger": "flowkit.log",
    "Node": "flowkit.node",
    "Permanent": "flowkit.errors",
    "Send": "flowkit.wire.items",
    "Wait": "flowkit.wire.items",
}


if not TYPE_CHECKING:  # to a type checker, a name that is not imported above does not exist

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'flowkit' has no attribute {name!r}; it has {', '.join(__all__)}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
