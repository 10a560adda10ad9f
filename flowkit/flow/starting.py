"""A start message begins a run, or finds it there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from flowkit.flow import making, paths
from flowkit.flow.changes import AddRun, AddScope, AddTask, AnnounceRun, Change, DeclareConflict
from flowkit.flow.context import Context
from flowkit.flow.events import Event, Reported, Started
from flowkit.flow.making import Place
from flowkit.flow.state import Run, Scope, State, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import Send


def started(state: State, event: Started, context: Context) -> Iterator[Change | Event]:
    """Begin a run; the same start again changes nothing, another one with its id is a conflict."""
    start, run_id, now = event.start, event.run_id, context.now
    run = state.runs.get(run_id)
    if run is not None:
        there = codec.loads(state.inputs[run_id])
        if run.node != start.node or codec.by_value(there) != codec.by_value(start.inputs):
            yield DeclareConflict(run_id, start)
        elif run.status.ended:
            yield AnnounceRun(run_id)
        return
    run = Run(
        id=run_id,
        node=start.node,
        tags=codec.dumps(start.tags),
        parent=start.parent,
        started_at=now,
        deadline=None if start.deadline is None else now + start.deadline,
        traceparent=event.traceparent,
        tasks=1,
        origin=event.origin,
    )
    yield AddRun(run)
    yield AddScope(Scope(run_id=run_id, path="", parent=None, outstanding=1))
    first, place = Send(start.node, start.inputs, delay=start.delay), Place(run, None, paths.ROOT, "")
    if start.finished is None:
        yield from making.added(first, place, context)
        return
    # A one-shot script ran the first task itself: it was never sent, and its outcome is applied at once.
    root = making.task(first, place, context)
    ran = root._replace(
        id=_one_shot_id(run_id, root.id), status=TaskStatus.RUNNING, held_for=None, due=None, sent_at=now
    )
    yield AddTask(ran)
    yield Reported(_outcome(ran, start.finished, now))


def detached(send: Send, outputs: dict[str, Any], place: Place, context: Context) -> Started:
    """The run that a detached send begins; its id follows from the task that returned it, so it begins once."""
    run = place.run
    run_id = place.task_id(context.secret).hex
    start = wire.Start.model_construct(  # not checked again: the tags of a run may be older than their bounds
        node=send.node,
        inputs=outputs if send.inputs is None else send.inputs,
        run_id=run_id,
        tags=codec.loads(run.tags),
        delay=send.delay,
        parent=run.id,
    )
    return Started(run_id, start, run.traceparent, origin="detached")


def _outcome(task: Task, outcome: wire.Outcome, now: float) -> wire.Result:
    return wire.Result(
        task_id=task.id,
        run_id=task.run_id,
        node=task.node,
        nodes=outcome.nodes,
        outputs=outcome.outputs,
        message=outcome.message,
        error=outcome.error,
        status=wire.Status(outcome.status),
        finished_at=now,
    )


def _one_shot_id(run_id: str, derived: UUID) -> UUID:
    """A one-shot script knows its task by the id it was given, which is the run's id too."""
    try:
        return UUID(run_id)
    except ValueError:
        return derived
