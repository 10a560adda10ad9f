"""Brokers: ``open_broker(url)`` gives the right one for an address."""

from __future__ import annotations

from flowkit.addresses import flaw, mask
from flowkit.broker.protocol import Broker, Consumer, Delivery, Outgoing, QueueState

__all__ = ["Broker", "Consumer", "Delivery", "Outgoing", "QueueState", "open_broker"]


def open_broker(url: str, *, heartbeat: float = 15) -> Broker:
    """The broker for an address, not yet connected.

    Args:
        url: ``memory:`` or ``memory:name`` (a broker of this process; the same name is the same broker), ``amqp://…``
            or ``amqps://…``.
        heartbeat: seconds between heartbeats of an AMQP connection; two missed ones end it.

    Raises:
        UsageError: another scheme.
    """
    from flowkit.errors import UsageError

    if url.startswith("memory:"):
        from flowkit.broker.memory import MemoryBroker

        return MemoryBroker.named(url.removeprefix("memory:"))
    if url.startswith(("amqp://", "amqps://")):
        from flowkit.broker.rabbit import RabbitBroker

        return RabbitBroker(url, heartbeat=heartbeat)
    wrong = flaw(url) or "expected amqp://, amqps:// or memory:"
    raise UsageError(f"broker address {mask(url)!r}: {wrong}")
