"""What the core knows of a run: rows as frozen values. The store keeps exactly these.

They are named tuples because a batch makes, reads and changes hundreds of them: a frozen dataclass of as many fields
costs four times as much to make, and seven times as much to make again with one field changed (``_replace``).

A task's position is its *path*: the root is ``0``, the third child of ``0.1`` is ``0.1.2``, the continuation of a
Gather at ``0.1.2`` is ``0.1.2.then``. A scope's path is that of its Gather; the run's own scope is the empty path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class RunStatus(StrEnum):
    """Status of a run. ``ended``: whether nothing will happen any more."""

    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __init__(self, word: str) -> None:
        self.ended = word in ("succeeded", "failed", "cancelled")


class TaskStatus(StrEnum):
    """Status of a task. ``outstanding``: whether its scope waits for it."""

    HELD = "held"  # not to be sent yet: see held_for
    QUEUED = "queued"  # released; sent once sent_at is set
    RUNNING = "running"  # a worker said that it started
    WAITING = "waiting"  # for a signal
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __init__(self, word: str) -> None:
        self.outstanding = word in ("held", "queued", "running", "waiting")  # asked all the time: a set would hash it


OUTSTANDING = frozenset(status for status in TaskStatus if status.outstanding)

# Why a task is held
DELAY = "delay"
RETRY = "retry"
PAUSED = "paused"  # with its run
WINDOW = "max_concurrency"  # it begins a branch that waits for room in its Gather
LIMIT = "limit"  # of its node, over all workers


class ScopeStatus(StrEnum):
    """Status of a scope."""

    OPEN = "open"
    CLOSED = "closed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Run(NamedTuple):
    """One run. Times are Unix seconds. ``inputs`` are the root task's; ``outputs`` is set when it ended."""

    id: str
    node: str
    started_at: float
    status: RunStatus = RunStatus.RUNNING
    tags: bytes = b"{}"
    parent: str | None = None
    deadline: float | None = None
    traceparent: str | None = None  # of its start, passed on to every task (W3C Trace Context)
    tasks: int = 0  # that are there, for the limit
    trimmed: int = 0  # tasks that were removed while it went on (max_history)
    trimmed_before: float | None = None  # all of them were created before this time
    ended_at: float | None = None
    outputs: bytes | None = None
    outputs_from: UUID | None = None  # the task whose outputs are the run's: each value is kept once
    message: str = ""
    error: bytes | None = None  # JSON of wire Error, with node and task_id beside
    origin: str | None = None  # how it began when nobody started it: detached, rerun, schedule
    grace_until: float | None = None  # cancelled: until when running mains may go on


class Scope(NamedTuple):
    """What a Gather opened, or the run's root scope (path ``""``)."""

    run_id: str
    path: str
    parent: str | None  # path of the enclosing scope; None for the root
    status: ScopeStatus = ScopeStatus.OPEN
    outstanding: int = 0  # tasks of this scope that are outstanding, plus child scopes that are open
    branches: int = 0
    opener: UUID | None = None  # the task that returned the Gather
    then: bytes | None = None  # JSON of the Send that goes on
    return_exceptions: bool = False
    max_concurrency: int | None = None  # branches at a time; each is a scope of its own then
    due: float | None = None  # when its unfinished branches fail


class Task(NamedTuple):
    """One task. Of ``inputs`` and ``inputs_from`` one is set: the value, or the task whose outputs they are.

    Rows that were loaded to be advanced carry no payloads (``inputs``, ``outputs``, ``error`` are None).
    """

    run_id: str
    id: UUID
    path: str
    scope: str
    node: str
    created_at: float
    status: TaskStatus = TaskStatus.QUEUED
    attempt: int = 1
    tries: int = 1
    held_for: str | None = None  # one of the reasons above
    due: float | None = None  # when a held task is released
    inputs: bytes | None = None
    inputs_from: UUID | None = None
    outputs: bytes | None = None
    nodes: bytes | None = None  # JSON of the items it returned
    leaf_of: str | None = None  # the scope whose value it is part of
    wait: bytes | None = None  # JSON of the Wait that it stands for; its node is that of `then`
    signal: str | None = None  # the name that it waits for
    handler: bool = False  # stands in for a failed task (on_error)
    deaths: int = 0  # processes that began this attempt alone and never came back
    message: str = ""
    error: bytes | None = None
    sent_at: float | None = None
    first_started_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    slot: str | None = None  # the limit that it counts in: its node, or its node and key
    leased_until: float | None = None  # its worker answers for it so long, and not the broker
    depth: float | None = None  # steps in a row up to it, less those that time allows; None: as many as its path has
    unfolded: str | None = None  # its path before it was folded, which begins with that of the task before


class Leaf(NamedTuple):
    """A value that a scope collected: the outputs of a task without successors, or the failure of a branch."""

    path: str
    task_id: UUID
    outputs: bytes | None
    error: bytes | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that came before anybody waited for it. ``input`` is JSON."""

    id: UUID
    input: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """What a round of events needs loaded. A task brings its scope with it."""

    runs: frozenset[str]  # locked, in the order of their ids
    roots: frozenset[str]  # of these the root task's inputs too
    tasks: frozenset[tuple[str, UUID]]
    scopes: frozenset[tuple[str, str]]
    payloads: frozenset[tuple[str, UUID]] = (
        frozenset()
    )  # tasks whose resolved inputs are wanted, and their node's on_error
    waits: frozenset[tuple[str, str]] = frozenset()  # (run, signal name): tasks that wait for it
    signals: frozenset[tuple[str, str]] = frozenset()  # (run, signal name): signals that nobody has taken
    commands: frozenset[UUID] = frozenset()


@dataclass(slots=True)
class State:
    """The rows that a round of events is folded over; changes are applied to it as they are made."""

    runs: dict[str, Run] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)  # run id -> the root task's
    tasks: dict[tuple[str, UUID], Task] = field(default_factory=dict)
    scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)
    payloads: dict[tuple[str, UUID], bytes] = field(default_factory=dict)  # resolved inputs
    waits: dict[tuple[str, str], list[UUID]] = field(default_factory=dict)  # waiting tasks, oldest first; rows in tasks
    signals: dict[tuple[str, str], list[Signal]] = field(default_factory=dict)  # untaken, in the order they came
    commands: set[UUID] = field(default_factory=set)  # of those asked for, the ones decided before
    refusals: dict[UUID, str] = field(default_factory=dict)  # the reasons of those that were refused
    on_error: dict[str, str] = field(default_factory=dict)  # node -> the node that handles its failures
    reopening: set[str] = field(default_factory=set)  # runs whose rows go on only when this round is written
