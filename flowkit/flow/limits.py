"""How far a run may go before it is stopped with the limit's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Guards against workflows that never end or explode. All are settings."""

    max_tasks: int = 100_000  # tasks of one run, without those that were removed
    max_depth: int = 1_000  # steps of a chain in a row, beyond those that max_step_rate allows
    max_step_rate: float = 10  # steps a second that a chain may make for ever
    max_history: int = 5_000  # tasks of a loop that are kept; older ones that have ended are removed
    max_gather: int = 10_000  # sends in one Gather
    max_nodes: int = 1_000  # distinct node names a coordinator declares queues for
    max_attempts: int = 1_000  # attempts of one task
    max_deaths: int = 3  # processes that may die over one attempt of a task
    max_message_bytes: int = 16 * 1024 * 1024  # of one message
