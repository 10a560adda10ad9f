"""One task and one Definition make one result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from flowkit.errors import FlowKitError
from flowkit.flow.limits import Limits
from flowkit.wire import codec
from flowkit.wire.messages import Error, Status, Task, explain
from flowkit.worker.current import Current, Sink, current
from flowkit.worker.definition import Definition
from flowkit.worker.failure import describe, message_of
from flowkit.worker.report import Report, said_by
from flowkit.worker.returned import check_returned

Clock = Callable[[], float]


class QueueTimeout(FlowKitError):
    """No worker took the task in time."""


async def execute(
    task: Task,
    definition: Definition,
    *,
    sink: Sink,
    worker: str,
    clock: Clock = time.time,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Report:
    """Run one attempt of a task.

    Whatever the author's code does becomes a result: every exception, ``SystemExit`` and a ``CancelledError`` that
    nobody sent included.

    Args:
        task: what to do.
        definition: who does it.
        sink: where the lines go that it logs.
        worker: the name of the process, for the result.
        clock: Unix seconds.
        limits: how much one task may return.

    Raises:
        asyncio.CancelledError: the asyncio task that this runs in was cancelled.
    """
    started = clock()

    def report(status: Status, **fields: Any) -> Report:
        return Report.of(task, status, worker=worker, started_at=started, finished_at=max(started, clock()), **fields)

    def failed(error: Error, status: Status = Status.FAILED, **fields: Any) -> Report:
        return report(status, message=said_by(error), error=error, **fields)

    if task.start_by is not None and started > task.start_by:
        late = f"no worker took it in time: {started - task.start_by:.1f} s over (queue_timeout of node {task.node!r})"
        return failed(describe(QueueTimeout(late)))
    try:
        arguments = _arguments(task, definition.model)
    except BaseException as error:  # noqa: BLE001 - validators are the author's code
        _raise_if_cancelled()
        return failed(_unfit(error, task.node))

    token = current.set(Current(task, sink))
    try:
        value = await _main(definition, arguments)
    except BaseException as error:  # noqa: BLE001 - one of the three borders: the author's code
        _raise_if_cancelled()
        described = describe(error)
        try:
            retry_in = await _retry_in(definition, task, error, started, clock())
        except BaseException as second:  # noqa: BLE001 - so are policies
            _raise_if_cancelled()
            said = f"{described.message}; then its retry policy raised {type(second).__name__}: {message_of(second)}"
            return failed(described.model_copy(update={"message": said}))
        return failed(described) if retry_in is None else failed(described, Status.RETRY, retry_in=retry_in)
    finally:
        current.reset(token)

    try:
        returned = check_returned(value, limits)
        done = report(Status.SUCCEEDED, nodes=returned.nodes, outputs=returned.outputs, message=returned.message)
        return done.within(limits.max_message_bytes)
    except BaseException as error:  # noqa: BLE001 - a dict that another thread changes raises from anywhere in here
        _raise_if_cancelled()
        return failed(describe(error))  # at once: the same code returns the same again


def _arguments(task: Task, model: type[BaseModel] | None) -> tuple[BaseModel, ...]:
    # As JSON, not as Python values: a strict model takes a date from text only when it knows that it reads JSON.
    return () if model is None else (model.model_validate_json(codec.dumps(task.inputs)),)


def _unfit(error: BaseException, node: str) -> Error:
    if isinstance(error, ValidationError):
        return Error(type="InvalidInputs", message=f"inputs do not fit node {node!r}: {explain(error)}")
    return describe(error)


async def _main(definition: Definition, arguments: tuple[BaseModel, ...]) -> object:
    if definition.timeout is None:
        return await definition.main(*arguments)
    try:
        async with asyncio.timeout(definition.timeout) as limit:
            return await definition.main(*arguments)
    except TimeoutError as error:
        if not limit.expired() or not isinstance(error.__cause__, asyncio.CancelledError):
            raise  # the author's own
        over = TimeoutError(f"no result within {definition.timeout:g} s (timeout of node {definition.name!r})")
        raise over.with_traceback(error.__cause__.__traceback__) from None  # where it was waiting


async def _retry_in(
    definition: Definition, task: Task, error: BaseException, started: float, now: float
) -> float | None:
    if definition.policy is None:
        return None
    first = started if task.first_started_at is None else task.first_started_at
    return await definition.policy.retry_in(error, tries=task.tries, first=first, now=now)


def _raise_if_cancelled() -> None:
    """Let a cancellation through that was meant for the worker's own task, and no other."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
