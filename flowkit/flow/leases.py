"""Long tasks and what workers say they have: who answers for a task when its message must not wait any longer.

A broker takes a message back that is not acknowledged in time, so the message of a long task is acknowledged while it
runs. From then on only its *lease* brings it back: a time until which its worker has to be heard of again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from flowkit.flow import making
from flowkit.flow.changes import Change, MoveTask, Tell
from flowkit.flow.context import Context
from flowkit.flow.events import Event, LeaseExpired, TaskFailed
from flowkit.flow.limits import Limits
from flowkit.flow.state import PAUSED, RunStatus, State, TaskStatus
from flowkit.flow.terms import Terms
from flowkit.wire import bounds
from flowkit.wire import messages as wire

SENT = frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store knows of a task that a worker says he has. Times are Unix seconds."""

    status: TaskStatus
    attempt: int
    created_at: float
    run: RunStatus
    sent_at: float | None = None
    first_started_at: float | None = None
    leased_until: float | None = None
    grace_until: float | None = None  # of its run, which was cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that is granted or renewed: what its row says from now on."""

    run_id: str
    task_id: UUID
    attempt: int
    worker: str
    until: float
    sent_at: float
    started_at: float
    first_started_at: float


def lease(entry: wire.Running, known: Known, worker: str, now: float, terms: Terms) -> Lease | None:
    """The lease of a task that a worker announces, when it is time to grant or renew one.

    It is renewed when a third of it has passed, not at each announcement: a row is written every half a minute.

    Args:
        entry: what the worker says.
        known: what the store says.
        worker: who said it.
        now: Unix seconds, by the store's clock.
        terms: of all leases.
    """
    if entry.run_id is None or entry.since is None or not _is_current(entry, known) or known.status not in SENT:
        return None
    if known.leased_until is None:
        # The worker's clock may be wrong: it has not begun before the task was sent, nor after now.
        earliest = known.created_at if known.sent_at is None else known.sent_at
        began = earliest if entry.since > now else max(entry.since, earliest)
        if 0 <= now - began < terms.after:  # sent in the future: a clock was set back, and nobody knows its age
            return None
    elif terms.silence * 2 / 3 <= known.leased_until - now <= terms.silence * 4 / 3:
        return None  # one that lasts longer was written before a clock was set back
    return Lease(
        run_id=entry.run_id,
        task_id=entry.task_id,
        attempt=entry.attempt,
        worker=worker,
        until=now + terms.silence,
        sent_at=now if known.sent_at is None else known.sent_at,  # its confirm was not written: it came from somewhere
        started_at=entry.since,
        first_started_at=entry.since if known.first_started_at is None else known.first_started_at,
    )


def telling(entry: wire.Running, known: Known, worker: str, now: float) -> wire.Control | None:
    """What a worker has to hear about a task that he announces, because he missed it; None when all is well.

    Args:
        entry: what the worker says.
        known: what the store says.
        worker: who said it.
        now: Unix seconds, by the store's clock.
    """
    if known.run.ended:
        grace = 0 if known.grace_until is None else known.grace_until - now
        left = {"grace": grace} if grace > 0 else {}
        return wire.Control(kind="cancel", run_id=entry.run_id, worker=worker, **left)
    if not known.status.outstanding or not _is_current(entry, known):
        return wire.Control(
            kind="cancel", run_id=entry.run_id, task_id=entry.task_id, attempt=entry.attempt, worker=worker
        )
    if known.run is RunStatus.PAUSED and entry.since is None:
        return wire.Control(kind="paused", run_id=entry.run_id, worker=worker)
    return None


def _is_current(entry: wire.Running, known: Known) -> bool:
    return entry.attempt == known.attempt


def expired(state: State, event: LeaseExpired, context: Context) -> Iterator[Change | Event]:
    """Nobody has said for too long that he has this task: a process died over it, and the next attempt is due."""
    run, task = state.runs.get(event.run_id), state.tasks.get((event.run_id, event.task_id))
    if run is None or run.status.ended or task is None or task.status is not TaskStatus.RUNNING:
        return
    if task.leased_until is None or task.leased_until > context.now:
        return  # answered, or heard of again, a moment ago
    deaths, limits = task.deaths + 1, context.limits
    # Whoever has it all the same (stopped, and woken later) wastes his time: the next attempt fences him off.
    yield Tell(wire.Control(kind="cancel", run_id=run.id, task_id=task.id, attempt=task.attempt))
    error = process_died(deaths, task.worker, limits)
    if task.attempt >= limits.max_attempts:
        error = wire.Error(type="LimitExceeded", message=f"max_attempts: the task was sent {task.attempt} times")
    elif deaths < limits.max_deaths:
        paused = run.status is RunStatus.PAUSED
        yield MoveTask(
            run_id=run.id,
            task_id=task.id,
            status=TaskStatus.HELD if paused else TaskStatus.QUEUED,
            held_for=PAUSED if paused else None,
            attempt=task.attempt + 1,
            tries=task.tries,  # it was no fault of its node's main, as far as anybody knows
            deaths=deaths,
            error=making.encode_error(error, task.node, task.id),
            first_started_at=task.first_started_at,
        )
        return
    worker = None if task.worker is None else bounds.cut(task.worker, bounds.WORKER)  # kept before it had a bound
    silent = wire.Result(task_id=task.id, run_id=run.id, attempt=task.attempt, status=wire.Status.FAILED, worker=worker)
    yield TaskFailed(run.id, task.id, silent, error)


def process_died(deaths: int, worker: str | None, limits: Limits) -> wire.Error:
    """What is to be said of a task that processes have died over, be it the last word or not."""
    worker = bounds.cut(str(worker), bounds.WORKER)
    what = f"{deaths} processes died while they ran it, the last one was {worker}"
    if deaths == 1:
        what = f"process {worker} died while it ran it"
    return wire.Error(type="ProcessDied", message=what + " (setting max_deaths)" * (deaths >= limits.max_deaths))
