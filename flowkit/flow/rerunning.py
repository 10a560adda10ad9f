"""A rerun: a new run that takes over what an ended one has settled, and goes on from one of its tasks."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.flow import paths, slots
from flowkit.flow.changes import AddRun, AnnounceRun, Change, CopyRun, DeclareRefused, Reopen
from flowkit.flow.context import Context
from flowkit.flow.state import Run, State
from flowkit.wire import codec
from flowkit.wire import messages as wire

ORIGIN = "rerun"
UNKNOWN = "unknown"  # the node of a run that is not there


def new_run_id(command: wire.Command) -> str:
    """The id of the run that a rerun makes: the client's, or one that follows from the command."""
    return command.new_run_id or command.id.hex


def why_not(state: State, command: wire.Command, context: Context) -> str | None:
    """What speaks against it, beside the status of the run; None when nothing does."""
    new = new_run_id(command)
    if new in state.runs:
        return f"cannot rerun run {command.run_id!r} as {new!r}: a run with this id exists already"
    if command.task_id is not None and (why := _why_not_from(state, command)) is not None:
        return f"cannot rerun run {command.run_id!r} from task {command.task_id}: {why}"
    try:
        slot_of(state, command, context)
    except slots.MissingKey as error:
        return f"cannot rerun run {command.run_id!r} with these inputs: {error}"
    return None


def _why_not_from(state: State, command: wire.Command) -> str | None:
    """What speaks against the task that the command names."""
    assert command.run_id is not None
    assert command.task_id is not None
    run, task = state.runs[command.run_id], state.tasks.get((command.run_id, command.task_id))
    removed = f"{run.trimmed:,} of its oldest tasks were removed while it ran (max_history)"
    if task is None:
        return "it has no such task" + (f"; {removed}" if run.trimmed else "")
    if run.trimmed_before is not None and task.created_at < run.trimmed_before and task.path != paths.ROOT:
        return f"what followed from it is not known any more; {removed}"
    return None


def slot_of(state: State, command: wire.Command, context: Context) -> str | None:
    """The slot of the task that runs anew, where the command has other inputs for it.

    Raises:
        MissingKey: they do not have the key that its node's limit goes by.
    """
    assert command.run_id is not None
    task = None if command.task_id is None else state.tasks[command.run_id, command.task_id]
    node = state.runs[command.run_id].node if task is None else task.node
    limit, inputs = context.node_limits.get(node), command.input
    return None if limit is None or inputs is None else slots.slot(node, limit, lambda: inputs)


def rerun(state: State, run: Run, command: wire.Command, context: Context) -> Iterator[Change]:
    """Add the new run, copy into it what does not follow from the task, and open that again.

    The deadline begins anew, as do the timeouts of what is opened. Signals that nobody took are not copied.
    """
    new = Run(
        id=new_run_id(command),
        node=run.node,
        tags=run.tags,
        parent=run.id,
        origin=ORIGIN,
        started_at=context.now,
        deadline=None if run.deadline is None else context.now + run.deadline - run.started_at,
        traceparent=run.traceparent,
    )
    yield AddRun(new)
    yield CopyRun(
        run_id=new.id,
        source=run.id,
        task_id=command.task_id,
        inputs=None if command.input is None else codec.dumps(command.input),
        slot=slot_of(state, command, context),
        at=context.now,
        secret=context.secret,
    )
    yield Reopen(new.id, context.now)


def refused(run: Run | None, command: wire.Command, reason: str) -> DeclareRefused:
    """The answer to whoever waits for the run that there will not be."""
    return DeclareRefused(new_run_id(command), UNKNOWN if run is None else run.node, command.id, reason)


def came_again(state: State, command: wire.Command) -> Iterator[Change]:
    """The same rerun again: whoever waits for its end may have missed it."""
    new = state.runs.get(new_run_id(command))
    if new is not None and new.status.ended and (new.origin, new.parent) == (ORIGIN, command.run_id):
        yield AnnounceRun(new.id)
