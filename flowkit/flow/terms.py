"""How long tasks run before they are leased, and how long a lease lasts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """When a task is leased, and how long nobody may say that he has it. Seconds."""

    after: float = 300  # how long it has been running; well below RabbitMQ's consumer_timeout of 30 minutes
    silence: float = 90  # several announcements of a worker, and a broken connection between them
