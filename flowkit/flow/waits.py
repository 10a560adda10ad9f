"""Waiting for people and other systems: a ``Wait`` ends by a signal, or by its timeout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from flowkit.flow import making, paths
from flowkit.flow.changes import AddSignal, Change, SettleTask, TakeSignal
from flowkit.flow.context import Context
from flowkit.flow.events import Event, Signalled, TaskFailed, WaitExpired
from flowkit.flow.state import Run, Signal, State, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import Send, Wait, as_send


def opened(state: State, tasks: Iterable[Task]) -> Iterator[Change | Event]:
    """Waits begin; signals that came before end them at once, each one of them."""
    kept = {key: list(signals) for key, signals in state.signals.items()}
    for task in tasks:
        assert task.signal is not None
        signals = kept.get((task.run_id, task.signal))
        if signals:
            first = signals.pop(0)
            yield TakeSignal(task.run_id, task.signal, first.id, task.id)
            yield Signalled(task.run_id, task.id, first.input)


def signal(state: State, run: Run, name: str, sent: Signal, context: Context) -> Iterator[Change | Event]:
    """A signal came: it ends the oldest wait of that name, or is kept for the next one."""
    waiting: list[UUID] = state.waits.get((run.id, name), [])
    if waiting:
        yield TakeSignal(run.id, name, sent.id, waiting[0])
        yield Signalled(run.id, waiting[0], sent.input)
    else:
        yield AddSignal(run.id, name, sent, context.now)


def signalled(state: State, event: Signalled, context: Context) -> Iterator[Change | Event]:
    """The task that waited is done; ``then`` goes on with its inputs plus ``signal``."""
    run, task = state.runs[event.run_id], state.tasks[event.run_id, event.task_id]
    if task.status is not TaskStatus.WAITING or task.wait is None or run.status.ended:
        return
    then = as_send(making.decode_wait(task.wait).then)
    added: dict[str, object] = {**(then.inputs or {}), "signal": codec.embed(event.input)}
    yield from _go_on(state, task, then, context, added=added, message=f"signal {task.signal}")


def expired(state: State, event: WaitExpired, context: Context) -> Iterator[Change | Event]:
    """Nobody signalled in time: ``on_timeout`` goes on, or the wait fails like a task."""
    run, task = state.runs[event.run_id], state.tasks[event.run_id, event.task_id]
    if task.status is not TaskStatus.WAITING or task.wait is None or run.status.ended:
        return
    wait = making.decode_wait(task.wait)
    if wait.on_timeout is not None:
        send = as_send(wait.on_timeout)
        message = f"no signal {wait.name} in time"
        yield from _go_on(state, task, send, context, added=dict(send.inputs or {}), message=message)
    else:
        yield _timed_out(task, wait)


def _go_on(
    state: State, task: Task, send: Send, context: Context, *, added: dict[str, object], message: str
) -> Iterator[Change | Event]:
    run = state.runs[task.run_id]
    outputs = {**codec.loads(state.payloads[run.id, task.id]), **added}
    yield SettleTask(
        run_id=run.id,
        task_id=task.id,
        status=TaskStatus.SUCCEEDED,
        attempt=task.attempt,
        outputs=codec.dumps(outputs),
        nodes=codec.dumps([send.node]),
        message=message,
        finished_at=context.now,
    )
    depth = making.next_depth(task, context)
    place = making.Place(run, task.id, paths.child(task.path, 0), task.scope, outputs, depth)
    # The wait that ends and the task that goes on both count one in the scope: its counter stays.
    yield from making.added(Send(send.node, delay=send.delay), place, context)
    yield from making.counted(run, 1, task.path, context)


def _timed_out(task: Task, wait: Wait) -> TaskFailed:
    error = wire.Error(type="TimeoutError", message=f"no signal {wait.name!r} came within {wait.timeout:g} s")
    result = wire.Result(task_id=task.id, run_id=task.run_id, status=wire.Status.FAILED, error=error)
    return TaskFailed(task.run_id, task.id, result, error)
