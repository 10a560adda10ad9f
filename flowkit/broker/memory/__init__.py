"""The broker in this process's memory: as hard on its user as RabbitMQ, and gone with the process."""

from flowkit.broker.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
