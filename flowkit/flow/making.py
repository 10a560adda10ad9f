"""New tasks, and how errors and sends are written down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from flowkit.flow import limiting, paths, slots
from flowkit.flow.changes import AddTask, CountTasks, TrimRun
from flowkit.flow.context import Context
from flowkit.flow.events import TaskFailed
from flowkit.flow.state import DELAY, LIMIT, PAUSED, WINDOW, Run, RunStatus, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import Send, Wait, as_send


class Place(NamedTuple):
    """Where a new task stands."""

    run: Run
    parent: UUID | None  # the task whose outputs are its inputs when it has none of its own; None: it is the first
    path: str
    scope: str
    outputs: Mapping[str, Any] | None = None  # of the parent, where they can be a task's inputs
    depth: float = 1.0  # steps in a row up to here

    def folded(self) -> Place:
        """The same place with a path that is not too long; itself where its path is short enough."""
        path = paths.fold(self.path, self.scope)
        return self if path == self.path else self._replace(path=path)

    def task_id(self, secret: bytes) -> UUID:
        """The id of the task that stands here."""
        return paths.task_id(secret, self.parent or self.run.id, self.path)


def next_depth(before: Task, context: Context) -> float:
    """How many steps in a row come to what follows from a task now."""
    return deeper(paths.depth(before.path) if before.depth is None else before.depth, before.created_at, context)


def deeper(depth: float, since: float, context: Context) -> float:
    """One step more than ``depth``, less ``max_step_rate`` for each second since then."""
    passed = max(0.0, context.now - since)
    return max(0.0, depth - passed * context.limits.max_step_rate) + 1


def counted(run: Run, created: int, path: str, context: Context) -> Iterator[CountTasks | TrimRun]:
    """Count new tasks of a run. A loop, which its path shows, loses its oldest tasks now and then.

    Args:
        run: as it was before.
        created: how many tasks are new.
        path: of the task that they follow from.
        context: of this transaction.
    """
    total = run.tasks + created
    yield CountTasks(run.id, total)
    keep = min(context.limits.max_history, context.limits.max_tasks // 2)
    every = max(keep // 5, 10)
    if paths.is_folded(path) and total >= keep + every and total // every > run.tasks // every:
        yield TrimRun(run.id, keep)


def added(
    send: Send,
    place: Place,
    context: Context,
    *,
    inputs: bytes | None = None,
    handler: bool = False,
    branch_held: bool = False,
) -> Iterator[AddTask | TaskFailed]:
    """Add the task of a ``Send``.

    Args:
        send: what to run; without inputs of its own it refers to its parent's outputs.
        place: where it stands.
        context: of this transaction.
        inputs: encoded, instead of the send's.
        handler: it stands in for a failed task.
        branch_held: it begins a branch that waits for room in its Gather.
    """
    made = task(send, place, context, inputs=inputs, handler=handler)
    if branch_held:
        made = made._replace(status=TaskStatus.HELD, held_for=WINDOW, due=None)
    limit = context.node_limits.get(send.node)
    if limit is None:
        yield AddTask(made)
        return
    try:
        slot = slots.slot(send.node, limit, lambda: _given(send, place, inputs))
    except slots.MissingKey as error:
        if branch_held:
            yield AddTask(made)  # it fails when its turn comes: earlier, its end would make room that it did not take
            return
        yield AddTask(made._replace(status=TaskStatus.HELD, held_for=LIMIT, due=None))
        yield limiting.missing_key(made.run_id, made.id, made.attempt, error)
        return
    if made.status is TaskStatus.QUEUED:
        made = made._replace(status=TaskStatus.HELD, held_for=LIMIT)
    yield AddTask(made._replace(slot=slot))


def _given(send: Send, place: Place, inputs: bytes | None) -> Mapping[str, Any]:
    if inputs is not None:
        found: Mapping[str, Any] = codec.loads(inputs)
        return found
    return (place.outputs or {}) if send.inputs is None else send.inputs


def task(send: Send, place: Place, context: Context, *, inputs: bytes | None = None, handler: bool = False) -> Task:
    """The task of a ``Send``, without regard to the limits of its node; arguments as those of ``added``."""
    own = inputs if inputs is not None or send.inputs is None else codec.dumps(send.inputs)
    status, held_for, due = TaskStatus.QUEUED, None, None
    if send.delay > 0:
        status, held_for, due = TaskStatus.HELD, DELAY, context.now + send.delay
    elif place.run.status is RunStatus.PAUSED:
        status, held_for = TaskStatus.HELD, PAUSED
    stands = place.folded()
    return Task(
        run_id=place.run.id,
        id=stands.task_id(context.secret),
        path=stands.path,
        scope=place.scope,
        node=send.node,
        status=status,
        held_for=held_for,
        due=due,
        inputs=own,
        inputs_from=place.parent if own is None else None,
        handler=handler,
        created_at=context.now,
        depth=place.depth,
        unfolded=None if stands is place else place.path,
    )


def waiting(wait: Wait, place: Place, context: Context) -> Task:
    """The task that a ``Wait`` is: outstanding in its scope, and never sent. Its inputs are its parent's outputs."""
    stands = place.folded()
    return Task(
        run_id=place.run.id,
        id=stands.task_id(context.secret),
        path=stands.path,
        scope=place.scope,
        node=as_send(wait.then).node,
        status=TaskStatus.WAITING,
        due=None if wait.timeout is None else context.now + wait.timeout,
        inputs_from=place.parent,
        wait=encode_wait(wait),
        signal=wait.name,
        created_at=context.now,
        depth=place.depth,
        unfolded=None if stands is place else place.path,
    )


def encode_error(error: wire.Error, node: str, task_id: UUID, cause: Mapping[str, Any] | None = None) -> bytes:
    """An error with the node and the task that it came from, and the failure that the task had to handle."""
    told = error.model_dump(exclude_none=True) | {"node": node, "task_id": task_id}
    return codec.dumps(told if cause is None else told | {"cause": cause})


def encode_send(send: Send) -> bytes:
    """A ``Send`` as a scope keeps it."""
    return codec.dumps(_send(send))


def decode_send(raw: bytes) -> Send:
    """What ``encode_send`` wrote."""
    return Send(**codec.loads(raw))


def encode_wait(wait: Wait) -> bytes:
    """A ``Wait`` as its task keeps it."""
    on_timeout = None if wait.on_timeout is None else _send(as_send(wait.on_timeout))
    kept = {"name": wait.name, "then": _send(as_send(wait.then)), "timeout": wait.timeout, "on_timeout": on_timeout}
    return codec.dumps(kept)


def decode_wait(raw: bytes) -> Wait:
    """What ``encode_wait`` wrote."""
    kept = codec.loads(raw)
    on_timeout = None if kept["on_timeout"] is None else Send(**kept["on_timeout"])
    return Wait(kept["name"], then=Send(**kept["then"]), timeout=kept["timeout"], on_timeout=on_timeout)


def _send(send: Send) -> dict[str, object]:
    return {"node": send.node, "inputs": send.inputs, DELAY: send.delay}
