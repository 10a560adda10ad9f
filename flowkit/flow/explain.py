"""Why a task is not done, and what to do about it. Pure: whoever asks has gathered what the store and broker say."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from enum import StrEnum

from flowkit.flow import slots, state
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import TaskStatus

LATE = 5.0  # seconds after which something due and not done says that no coordinator is at work


class Kind(StrEnum):
    """The reasons there are."""

    NO_WORKER = "no-worker"  # it stands in its queue, and nobody takes from it
    QUEUED = "queued"  # it stands in its queue, and there are workers
    UNSENT = "unsent"  # a coordinator has yet to send it
    REFUSED = "refused"  # a coordinator cannot send it: its queue is full or does not exist, or the broker has an alarm
    TAKEN = "taken"  # a worker has it, and has not said that it begins
    RUNNING = "running"
    SILENT = "silent"  # a worker began it and has not been heard of since
    DELAYED = "delayed"
    RETRYING = "retrying"
    PAUSED = "paused"
    WINDOW = "max-concurrency"  # enough branches of its Gather are under way
    LIMIT = "limit"  # its node's, over all workers
    HELD = "held"  # for any other reason
    WAITING = "waiting"  # for a signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """An outstanding task. Times are Unix seconds."""

    run_id: str
    node: str
    status: TaskStatus
    held_for: str | None = None
    due: float | None = None
    error: str | None = None  # of its last attempt, on one line
    sent_at: float | None = None
    started_at: float | None = None
    worker: str | None = None  # that said it begins
    signal: str | None = None
    leased_until: float | None = None  # it is sent again when nobody says by then that he has it
    slot: str | None = None  # of its limited node
    paused: bool = False  # so is its run: nothing comes of what is due
    handles: str | None = None  # the failure that it handles (on_error), on one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What there is around the task; None is what nobody could tell."""

    workers: int | None = None  # alive and announcing its node
    announced: bool | None = None  # whether any worker has ever announced its node
    taken_by: str | None = None  # the worker that lists it as taken
    taken_since: float | None = None  # when it began there; None: not begun
    ready: int | None = None  # messages in the queue of its node
    consumers: int | None = None  # of that queue: foreign workers, which announce nothing, are among them
    coordinators: int | None = None  # consumers of the queue of results
    blocked: str | None = None  # why the broker accepts no messages at all
    refusal: str | None = None  # why its queue refused tasks a moment ago, as a coordinator noted
    limit: NodeLimit | None = None  # of its node
    slot_out: int | None = None  # tasks of its slot that are sent and not answered
    slot_ending: int = 0  # of those that are out: they are cancelled, and have not ended
    slot_held: int | None = None  # tasks that its slot holds, this one included


@dataclass(frozen=True, slots=True)
class Reason:
    """Why it is not done.

    ``text`` is for people; ``hint`` is what to do, mostly a command to type, and empty where there is nothing to do.
    """

    kind: Kind
    text: str
    hint: str = ""


def explain(task: Stuck, around: Around, now: float) -> Reason:
    """Why an outstanding task is not done.

    Args:
        task: its row.
        around: what the broker and the workers say.
        now: Unix seconds.
    """
    reason = _explain(task, around, now)
    if task.handles is None:
        return reason
    return replace(reason, text=f"handles the failure of {task.handles}. Now: {reason.text}")


def _explain(task: Stuck, around: Around, now: float) -> Reason:
    match task.status:
        case TaskStatus.WAITING:
            return _waiting(task, around, now)
        case TaskStatus.HELD:
            return _held(task, around, now)
        case _ if around.taken_by is not None:
            return _taken(task, around.taken_by, around.taken_since, now)
        case TaskStatus.RUNNING:
            return _silent(task, around, now)
        case _:
            return _queued(task, around, now)


def _waiting(task: Stuck, around: Around, now: float) -> Reason:
    until = "" if task.due is None else f", for {span(task.due - now)} more"
    if task.due is not None and task.due <= now:
        until = f", whose time ended {span(now - task.due)} ago"
    hint = f"flowkit runs signal {task.run_id} {shlex.quote(task.signal or '')}"
    return Reason(Kind.WAITING, f"waits for signal {task.signal!r}{until}", _unless_late(task, around, now, hint))


def _held(task: Stuck, around: Around, now: float) -> Reason:
    match task.held_for:
        case state.PAUSED:
            return Reason(Kind.PAUSED, "held: the run is paused", _resume(task))
        case state.WINDOW:
            return Reason(Kind.WINDOW, "held by max_concurrency: it goes on when another branch of its Gather ends")
        case state.LIMIT:
            return _limited(task, around)
        case _ if task.due is None:
            return Reason(Kind.HELD, f"held for {task.held_for}")
        case _:
            return _timed(task, around, task.due, now)


def _timed(task: Stuck, around: Around, due: float, now: float) -> Reason:
    when = f"in {span(due - now)}" if due > now else f"due since {span(now - due)}"
    hint = _unless_late(task, around, now, "")
    if task.held_for == state.RETRY:
        last = f"; the last attempt failed: {task.error}" if task.error else ""
        return Reason(Kind.RETRYING, f"retry {when}{last}", hint)
    if task.held_for == state.DELAY:
        return Reason(Kind.DELAYED, f"delayed, to be sent {when}" if due > now else f"delayed, {when}", hint)
    return Reason(Kind.HELD, f"held for {task.held_for}, {when}", hint)


def _limited(task: Stuck, around: Around) -> Reason:
    ending = f" ({around.slot_ending:,} of them cancelled and not ended yet)" if around.slot_ending else ""
    counted = f"{around.slot_out or 0:,} out{ending}, {around.slot_held or 0:,} held"
    if around.limit is None:
        text, full = f"held by a limit that node {task.node!r} has no more: {counted}", False
    else:
        said = [f"limit {around.limit.limit}"] if around.limit.limit is not None else []
        said += [f"rate {around.limit.rate}"] if around.limit.rate is not None else []
        key = slots.key_of(task.slot or "")
        text = f"held by the {' and '.join(said)} of node {task.node!r}{f' for {key}' * bool(key)}: {counted}"
        full = around.limit.limit is not None and (around.slot_out or 0) >= around.limit.limit
    if around.coordinators == 0:
        return Reason(Kind.LIMIT, text, _begin_coordinator())
    if full and around.workers == 0 and not around.consumers:
        return Reason(Kind.LIMIT, f"{text}, and no worker for it", _begin_worker(task))
    return Reason(Kind.LIMIT, text, "flowkit runs list, for what is under way" if full else "")


def _taken(task: Stuck, worker: str, since: float | None, now: float) -> Reason:
    if since is None:
        return Reason(Kind.TAKEN, f"worker {worker} has taken it and not begun: it is busy with others",
                      f"more workers: {_begin_worker(task)}")  # fmt: skip
    return Reason(Kind.RUNNING, f"running on worker {worker} for {span(now - since)}", f"flowkit logs {task.run_id} -f")


def _silent(task: Stuck, around: Around, now: float) -> Reason:
    began = f"worker {task.worker or 'unknown'} began it"
    if task.started_at is not None:
        began += f" {span(now - task.started_at)} ago"
    if task.leased_until is not None:
        left = f"in {span(task.leased_until - now)}" if task.leased_until > now else "soon"
        text = f"{began} and does not list it any more: its lease ends {left}, then it is sent again"
        return Reason(Kind.SILENT, text, _begin_coordinator() if around.coordinators == 0 else "")
    if around.workers:
        return Reason(Kind.SILENT, f"{began} and does not list it any more; it is sent again when nobody answers")
    if around.consumers:
        return Reason(Kind.RUNNING, f"{began} and announces nothing", f"flowkit logs {task.run_id} -f")
    return Reason(Kind.SILENT, f"{began} and is gone; no worker for node {task.node!r}", _begin_worker(task))


def _queued(task: Stuck, around: Around, now: float) -> Reason:
    if task.sent_at is None:
        return _unsent(task, around)
    ready = "" if around.ready is None else f" with {around.ready:,} ready"
    ago = f"for {span(now - task.sent_at)}"
    serving = max(around.workers or 0, around.consumers or 0)
    if not serving:
        unknown = ". No worker has ever announced this node: is its name right?" if around.announced is False else ""
        text = f"no worker for node {task.node!r}: it waits in its queue{ready} {ago}{unknown}"
        return Reason(Kind.NO_WORKER, text, _begin_worker(task))
    if around.ready == 0:  # workers list what they have every few seconds, foreign ones never
        text = f"taken from its queue by a worker that has not listed it yet; sent {span(now - task.sent_at)} ago"
        return Reason(Kind.TAKEN, text, f"flowkit logs {task.run_id} -f")
    workers = f"{serving:,} worker{'s' if serving != 1 else ''}"
    hint = f"more workers: {_begin_worker(task)}" if around.ready else ""
    return Reason(Kind.QUEUED, f"waiting in its queue{ready}{' and' if ready else ' with'} {workers} {ago}", hint)


def _unsent(task: Stuck, around: Around) -> Reason:
    if around.coordinators == 0:
        return Reason(Kind.UNSENT, "not sent yet", _begin_coordinator())
    if around.blocked is not None:
        text = f"not sent: the broker accepts no messages, {around.blocked}"
        return Reason(Kind.REFUSED, text, "free memory or disk on its machine: rabbitmqctl status")
    if task.paused:
        return Reason(Kind.PAUSED, "not sent yet, or on its way: the run is paused", _resume(task))
    if around.refusal is None:
        return Reason(Kind.UNSENT, "not sent yet")
    ready = "" if around.ready is None else f" with {around.ready:,} ready"
    serving = max(around.workers or 0, around.consumers or 0)
    if not serving:
        text = f"not sent: queue of node {task.node!r}{ready} refuses tasks, {around.refusal}, and no worker takes any"
        return Reason(Kind.REFUSED, text, _begin_worker(task))
    text = f"not sent: queue of node {task.node!r}{ready} refuses tasks, {around.refusal}; it is tried again"
    return Reason(Kind.REFUSED, text, f"a larger max-length in its policy, or more workers: {_begin_worker(task)}")


def _unless_late(task: Stuck, around: Around, now: float, hint: str) -> str:
    """What is due and not done needs its run to go on, or else a coordinator, before all else."""
    if task.paused and task.due is not None and task.due <= now:
        return _resume(task)
    late = task.due is not None and now - task.due > LATE
    return _begin_coordinator() if late or (around.coordinators == 0 and task.due is not None) else hint


def _resume(task: Stuck) -> str:
    return f"flowkit runs resume {task.run_id}"


def _begin_worker(task: Stuck) -> str:
    return f"flowkit worker --node {task.node}"


def _begin_coordinator() -> str:
    return "no coordinator is at work: flowkit coordinator"


def span(seconds: float) -> str:
    """A duration for people: ``42 s``, ``3 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
