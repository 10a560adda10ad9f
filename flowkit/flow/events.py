"""What can happen to a run: what arrived, what time brought, and what the store or ``advance`` itself had to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from flowkit.flow.state import Leaf
from flowkit.wire import messages as wire


@dataclass(frozen=True, slots=True)
class Started:
    """A start message; its run id is settled."""

    run_id: str
    start: wire.Start
    traceparent: str | None = None
    origin: str | None = None  # how it began when nobody asked for it: detached, schedule


class Reported(NamedTuple):
    """A result message, or what we have to say in a worker's place."""

    result: wire.Result
    answers_for: frozenset[str] | None = None  # nodes whose tasks its sender may answer; None: those of any

    @property
    def run_id(self) -> str:
        """The run it belongs to."""
        return self.result.run_id


@dataclass(frozen=True, slots=True)
class Collected:
    """The store collected the values of a drained scope, in no particular order."""

    run_id: str
    scope: str
    outputs: bytes  # of the scope's opener; b"{}" for the root scope
    leaves: tuple[Leaf, ...]
    depth: float | None = None  # of the opener; None: as its path says
    opened_at: float | None = None  # when the opener was created


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The store cancelled ``count`` outstanding tasks and open scopes that stood directly in ``scope``."""

    run_id: str
    scope: str
    count: int


@dataclass(frozen=True, slots=True)
class AttemptsCancelled:
    """The store cancelled these attempts, which workers may have: all that did when the run goes on.

    When the whole run is cancelled, which all workers hear of, only those of limited nodes are listed.
    """

    run_id: str
    attempts: tuple[tuple[UUID, int], ...]  # tasks, each with the number of its attempt
    grace: float = 0  # seconds that their mains may go on


@dataclass(frozen=True, slots=True)
class BranchFailed:
    """What stood at ``path`` directly in ``scope`` (a task, or a child scope) failed for good.

    ``advance`` itself returns it when a scope fails: its parent is folded in the next round.
    """

    run_id: str
    scope: str
    path: str
    task_id: UUID  # whose failure it was
    error: bytes


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command message about a run."""

    command: wire.Command

    @property
    def run_id(self) -> str:
        """The run it is about."""
        assert self.command.run_id is not None, "a command without a run is refused when it is read"
        return self.command.run_id


@dataclass(frozen=True, slots=True)
class BranchEnded:
    """A branch that is a scope of its own (``max_concurrency``) has its value. ``advance`` itself returns it."""

    run_id: str
    scope: str  # the Gather's


@dataclass(frozen=True, slots=True)
class BranchReleased:
    """There is room for a branch that was held for max_concurrency. ``advance`` itself returns it."""

    run_id: str
    task_id: UUID


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task failed for good. ``advance`` itself returns it: what its failure means needs its inputs loaded."""

    run_id: str
    task_id: UUID
    result: wire.Result
    error: wire.Error


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal ended a ``Wait``; ``advance`` itself returns it."""

    run_id: str
    task_id: UUID
    input: bytes


@dataclass(frozen=True, slots=True)
class WaitExpired:
    """Nobody signalled in time."""

    run_id: str
    task_id: UUID


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """No worker has said for too long that it runs this task."""

    run_id: str
    task_id: UUID


@dataclass(frozen=True, slots=True)
class QueueExpired:
    """No worker took this task within the ``queue_timeout`` (seconds) of its node, and nobody has it."""

    run_id: str
    task_id: UUID
    attempt: int
    sent_at: float
    timeout: float


@dataclass(frozen=True, slots=True)
class ScopeExpired:
    """A Gather's timeout is over."""

    run_id: str
    scope: str


@dataclass(frozen=True, slots=True)
class Drained:
    """A scope is open though nothing in it is outstanding: its counter was too high until it was corrected."""

    run_id: str
    scope: str


@dataclass(frozen=True, slots=True)
class RunExpired:
    """A run's deadline has passed."""

    run_id: str
    handling: bytes | None = None  # inputs of its oldest outstanding handler (on_error): they name the first error


Event = (
    Started | Reported | Collected | Cancelled | BranchEnded | BranchReleased | BranchFailed | TaskFailed
    | AttemptsCancelled | Commanded | Signalled | WaitExpired | LeaseExpired | QueueExpired | ScopeExpired | Drained
    | RunExpired
)  # fmt: skip
