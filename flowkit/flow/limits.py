"""How far a run may go before it is stopped with the limit's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Guards against workflows that never end or explode. All are settings."""

    max_tasks: int = 100_000  # tasks in one run
    max_depth: int = 1_000  # segments of a task's path
    max_gather: int = 10_000  # sends in one Gather
    max_nodes: int = 1_000  # distinct node names a coordinator declares queues for
    max_attempts: int = 1_000  # attempts of one task
    max_deaths: int = 3  # processes that may die over one attempt of a task
    max_message_bytes: int = 16 * 1024 * 1024  # of one message
