"""What a store shows to people: runs, tasks and all else as they see them, and the questions that can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from flowkit.store.protocol import DeadLetter

if TYPE_CHECKING:  # a verb that only looks would wait for them
    from flowkit.flow.audit import Whole
    from flowkit.flow.schedules import Schedule
    from flowkit.wire import messages as wire


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as people see it. Payloads are JSON."""

    id: str
    node: str
    status: str
    started_at: float
    ended_at: float | None
    message: str
    error: bytes | None
    tags: bytes
    parent: str | None
    tasks: int
    origin: str | None = None  # detached, rerun, schedule; None: somebody started it
    trimmed: int = 0  # tasks of a loop that were removed while it went on
    inputs: bytes | None = None  # of one run only, not in lists
    outputs: bytes | None = None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as people see it. Payloads are JSON."""

    id: UUID
    run_id: str
    path: str
    scope: str
    node: str
    status: str
    attempt: int
    tries: int
    held_for: str | None
    due: float | None
    message: str
    error: bytes | None
    worker: str | None
    created_at: float
    sent_at: float | None
    first_started_at: float | None
    started_at: float | None
    finished_at: float | None
    signal: str | None = None  # the name that it waits for, or waited
    handler: bool = False  # it stands in for a failed task
    deaths: int = 0  # processes that died over this attempt
    slot: str | None = None  # the limit that it counts in
    leased_until: float | None = None
    unfolded: str | None = None  # its path before it was folded: it begins with that of the task before
    inputs: bytes | None = None
    outputs: bytes | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as it announced itself last."""

    name: str
    version: str
    seen_at: float
    stopping: bool
    announcement: bytes  # JSON of wire Worker


@dataclass(frozen=True, slots=True)
class NodeCount:
    """Outstanding tasks of one node, without those that wait for a signal."""

    node: str
    held: int
    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class SlotCount:
    """Tasks of one slot of a limited node."""

    out: int  # sent, or about to be, and not answered
    held: int  # for the limit
    ending: int = 0  # of those that are out: they are cancelled, and have not ended


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command that was decided."""

    id: UUID
    kind: str
    at: float
    refused: str | None = None  # why; None: it was applied


@dataclass(frozen=True, slots=True)
class SignalRow:
    """A signal that nobody has taken yet. ``input`` is JSON."""

    id: UUID
    name: str
    input: bytes
    at: float


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule and its last run as it stands; None: it has none, or it was pruned."""

    schedule: Schedule
    last_status: str | None
    last_started_at: float | None
    last_ended_at: float | None


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter as people see it in a list: ``size`` bytes of body, which are not read for that."""

    id: int
    reason: str
    detail: str
    queue: str
    size: int
    properties: bytes  # JSON
    at: float
    run_id: str | None


class Queries(Protocol):
    """What people ask. Read only; takes no lock that a coordinator would wait for."""

    def runs(self, *, limit: int, after: str | None = None, status: str | None = None, node: str | None = None,
             since: float | None = None, parent: str | None = None, tags: Mapping[str, str] | None = None,
             ) -> tuple[list[RunRow], str | None]:  # fmt: skip
        """Runs, newest first, and the cursor of the next page. ``tags`` are some that they have."""

    def run(self, run_id: str) -> RunRow | None:
        """One run with its inputs and outputs."""

    def tasks(self, run_id: str, *, payloads: bool = False, outstanding: bool = False) -> list[TaskRow]:
        """The tasks of a run in the order of their paths; with ``outstanding`` those that have not ended."""

    def whole(self, run_id: str) -> Whole | None:
        """One run with everything in it, for an audit; None when there is no such run."""

    def task_inputs(self, run_id: str, task_id: UUID) -> bytes | None:
        """The inputs of one task as JSON; None when there is no such task."""

    def logs(self, *, run_id: str | None = None, node: str | None = None, since: float | None = None,
             limit: int | None = None) -> list[wire.Log]:  # fmt: skip
        """Archived log lines, oldest first; with a limit the last ones."""

    def workers(self, *, seen_since: float) -> list[WorkerRow]:
        """Workers heard of since then."""

    def nodes(self) -> list[NodeCount]:
        """Nodes with outstanding tasks."""

    def run_counts(self) -> dict[str, int]:
        """How many runs have each status."""

    def slots(self, names: Iterable[str]) -> dict[str, SlotCount]:
        """What is out and held in each of these slots."""

    def node_infos(self) -> list[tuple[str, bytes, float]]:
        """Every node ever announced, by name: JSON of its newest wire NodeInfo, and when that came."""

    def dead(self, *, limit: int) -> list[DeadLetter]:
        """Dead letters, newest first."""

    def dead_rows(
        self, *, ids: Sequence[int] | None = None, reason: str | None = None, limit: int | None = None
    ) -> list[DeadLetterRow]:
        """Dead letters without their bodies, newest first: those with one of these ids and this reason, where given."""

    def dead_letter(self, letter_id: int) -> DeadLetter | None:
        """One dead letter."""

    def count_dead(self, reason: str | None = None) -> int:
        """How many dead letters are kept, all or those with one reason."""

    def dead_counts(self) -> dict[str, int]:
        """How many dead letters there are, by their reasons."""

    def commands(self, run_id: str) -> list[CommandRow]:
        """Commands that were decided about a run, in the order they came."""

    def signals(self, run_id: str) -> list[SignalRow]:
        """Signals of a run that nobody has taken yet, in the order they came."""

    def cancelled_attempts(self) -> int:
        """How many cancelled attempts of limited nodes have not ended, as far as anybody knows."""

    def unannounced(self) -> int:
        """How many ends of runs are still to be announced."""

    def superseded(self, run_id: str) -> list[tuple[UUID, int | None, str, str, float]]:
        """Results of a run that changed nothing: task, attempt, status, reason, time."""

    def schedules(self) -> list[ScheduleRow]:
        """All schedules, by name."""

    def next_due(self) -> float | None:
        """When time brings something next, Unix seconds; in the past when that is yet to be done, None: never."""

    def coordinated_until(self) -> float:
        """Until when the claim to the archive lasts, Unix seconds: while a coordinator is at work, it is renewed."""

    def archive_offset(self) -> int | None:
        """The offset of the last log message that was archived; None: none was."""

    def meta(self, key: str) -> str | None:
        """A fact about the store itself."""
