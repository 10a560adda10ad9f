"""What can happen to a run (events), and what ``advance`` answers (changes). All plain values.

Changes of rows are written in bulk. What concerns many tasks is an *effect* that the store carries out as a set; its
outcome comes back as an event and is folded in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from flowkit.flow.state import Leaf, Run, RunStatus, Scope, ScopeStatus, Task, TaskStatus
from flowkit.wire import messages as wire

# Events


@dataclass(frozen=True, slots=True)
class Started:
    """A start message; its run id is settled."""

    run_id: str
    start: wire.Start
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """A result message."""

    result: wire.Result

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


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The store cancelled ``count`` outstanding tasks and open scopes that stood directly in ``scope``."""

    run_id: str
    scope: str
    count: int


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


Event = Started | Reported | Collected | Cancelled | BranchFailed

# Changes of rows


@dataclass(frozen=True, slots=True)
class AddRun:
    """A new run."""

    run: Run


@dataclass(frozen=True, slots=True)
class AddScope:
    """A new scope."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class AddTask:
    """A new task; a queued one is sent after the commit."""

    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTasks:
    """The run has created this many tasks now."""

    run_id: str
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleTask:
    """A task ended: succeeded, failed or cancelled."""

    run_id: str
    task_id: UUID
    status: TaskStatus
    attempt: int
    outputs: bytes | None = None
    nodes: bytes | None = None
    leaf_of: str | None = None
    message: str = ""
    error: bytes | None = None
    first_started_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class MarkLeaf:
    """A failed task is the value of a branch of ``leaf_of``, which returns exceptions."""

    run_id: str
    task_id: UUID
    leaf_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTask:
    """An outstanding task goes on: to be held, sent again, or running. ``sent_at`` None means it is to be sent."""

    run_id: str
    task_id: UUID
    status: TaskStatus
    attempt: int
    tries: int
    held_for: str | None = None
    due: float | None = None
    error: bytes | None = None
    sent_at: float | None = None
    first_started_at: float | None = None
    started_at: float | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveScope:
    """A scope's counter or status changed."""

    run_id: str
    path: str
    outstanding: int
    status: ScopeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """A run ended; it is announced after the commit."""

    run_id: str
    status: RunStatus
    ended_at: float
    outputs: bytes | None = None
    outputs_from: UUID | None = None
    message: str = ""
    error: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersede:
    """A result that changed nothing, recorded with the reason."""

    run_id: str
    task_id: UUID
    attempt: int | None
    status: str
    reason: str
    at: float


# Effects: carried out by the store as a set, after all changes of rows were written


@dataclass(frozen=True, slots=True)
class Collect:
    """Collect the values of a scope; answered by ``Collected``."""

    run_id: str
    scope: str


@dataclass(frozen=True, slots=True)
class CancelBelow:
    """Cancel every outstanding task and open scope whose path is ``path`` or below it; answered by ``Cancelled``.

    ``scope`` is the scope whose counter the cancelled ones directly in it stood in: None when nobody counts any more.
    The empty path is the whole run.
    """

    run_id: str
    path: str
    scope: str | None
    at: float


# Messages, beside the tasks and run ends that follow from the rows


@dataclass(frozen=True, slots=True)
class AnnounceRun:
    """Publish the ``run`` message of an ended run once more: its start came again."""

    run_id: str


@dataclass(frozen=True, slots=True)
class DeclareConflict:
    """Answer a start whose run id is taken by something else."""

    run_id: str
    start: wire.Start


@dataclass(frozen=True, slots=True)
class Orphan:
    """A result of a run that this store does not know: it becomes a dead letter."""

    run_id: str


Change = (
    AddRun | AddScope | AddTask | CountTasks | SettleTask | MarkLeaf | MoveTask | MoveScope | EndRun | Supersede
    | Collect | CancelBelow | AnnounceRun | DeclareConflict | Orphan
)  # fmt: skip
