"""One task and one Definition make one result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
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
from flowkit.worker.timeout import Timeout

_log = logging.getLogger(__name__)
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
    cancelled: Callable[[], bool] = lambda: False,
) -> Report:
    """Run one attempt of a task, in an asyncio task that runs nothing else.

    Whatever the author's code does becomes a result: every exception, ``SystemExit`` included, and each
    ``CancelledError`` but the one of the caller.

    Args:
        task: what to do.
        definition: who does it.
        sink: where the lines go that it logs.
        worker: the name of the process, for the result.
        clock: Unix seconds.
        limits: how much one task may return.
        cancelled: whether the caller has cancelled this attempt. It has to be true before the caller cancels the
            asyncio task. The task itself cannot tell: author code and its libraries cancel it too, and
            ``cancelling()`` counts all of them.

    Raises:
        asyncio.CancelledError: the caller has cancelled the attempt.
    """
    token = current.set(Current(task, sink))  # for the author's hooks of inputs and outputs too
    try:
        return await _execute(task, definition, sink, worker=worker, clock=clock, limits=limits, cancelled=cancelled)
    finally:
        with suppress(ValueError):  # a main that does not end with its loop is closed in no context
            current.reset(token)


async def _execute(
    task: Task,
    definition: Definition,
    sink: Sink,
    *,
    worker: str,
    clock: Clock,
    limits: Limits,
    cancelled: Callable[[], bool],
) -> Report:
    started = clock()

    def report(status: Status, **fields: Any) -> Report:
        return Report.of(task, status, worker=worker, started_at=started, finished_at=max(started, clock()), **fields)

    def raise_if_cancelled() -> None:
        if cancelled():
            raise asyncio.CancelledError

    def failed(error: Error, status: Status = Status.FAILED, **fields: Any) -> Report:
        return report(status, message=said_by(error), error=error, **fields)

    if task.start_by is not None and started > task.start_by:
        late = f"no worker took it in time: {started - task.start_by:.1f} s over (queue_timeout of node {task.node!r})"
        return failed(describe(QueueTimeout(late)))
    try:
        arguments = _arguments(task, definition.model)
    except BaseException as error:  # noqa: BLE001 - validators are the author's code
        raise_if_cancelled()
        return failed(_unfit(error, task.node))

    def warn(text: str) -> None:
        sink.write(task, "WARNING", text)
        _log.warning("%s (task %s of run %s)", text, task.task_id, task.run_id, extra={"action": "timeout_overrun"})

    try:
        value = await _main(definition, arguments, warn)
    except BaseException as error:
        if cancelled() and isinstance(error, GeneratorExit):
            raise  # main did not end when it was cancelled, and is closed after its loop
        raise_if_cancelled()
        described = _described(error)
        try:
            retry_in = await _retry_in(definition, task, error, started, clock())
        except BaseException as second:  # noqa: BLE001 - so are policies
            raise_if_cancelled()
            said = f"{described.message}; then its retry policy raised {type(second).__name__}: {message_of(second)}"
            return failed(described.model_copy(update={"message": said}))
        return failed(described) if retry_in is None else failed(described, Status.RETRY, retry_in=retry_in)

    try:
        returned = check_returned(value, limits)
        done = report(Status.SUCCEEDED, nodes=returned.nodes, outputs=returned.outputs, message=returned.message)
        return done.within(limits.max_message_bytes)
    except BaseException as error:  # noqa: BLE001 - a dict that another thread changes raises from anywhere in here
        raise_if_cancelled()
        return failed(describe(error))  # at once: the same code returns the same again


def _arguments(task: Task, model: type[BaseModel] | None) -> tuple[BaseModel, ...]:
    # As JSON, not as Python values: a strict model takes a date from text only when it knows that it reads JSON.
    return () if model is None else (model.model_validate_json(codec.dumps(task.inputs)),)


def _unfit(error: BaseException, node: str) -> Error:
    if isinstance(error, ValidationError):
        return Error(type="InvalidInputs", message=f"inputs do not fit node {node!r}: {explain(error)}")
    return describe(error)


async def _main(definition: Definition, arguments: tuple[BaseModel, ...], warn: Callable[[str], None]) -> object:
    if definition.timeout is None:
        return await definition.main(*arguments)
    with Timeout(definition.timeout, definition.name, warn) as timeout:
        try:
            value = await definition.main(*arguments)
        except asyncio.CancelledError as error:
            if not timeout.expired:
                raise  # the author's own, or the caller's
            raise timeout.error().with_traceback(error.__traceback__) from None  # where it was waiting
        if timeout.expired:
            raise timeout.error("; main returned later: it blocked, or went on when it was cancelled")
        return value


async def _retry_in(
    definition: Definition, task: Task, error: BaseException, started: float, now: float
) -> float | None:
    if definition.policy is None:
        return None
    with suppress(asyncio.CancelledError):  # which main sent to its own asyncio task in its last step
        await asyncio.sleep(0)
    first = started if task.first_started_at is None else task.first_started_at
    return await definition.policy.retry_in(error, tries=task.tries, first=first, now=now)


def _described(error: BaseException) -> Error:
    described = describe(error)
    if isinstance(error, asyncio.CancelledError) and not described.message:
        return described.model_copy(update={"message": "main cancelled itself"})
    return described


async def execute_apart(task: Task, definition: Definition, *, sink: Sink, worker: str) -> Report:
    """Run one attempt in an asyncio task of its own.

    A cancellation of the caller then is one of the caller: author code cannot send it, nor swallow it.

    Args:
        task: what to do.
        definition: who does it.
        sink: where the lines go that it logs.
        worker: the name of the process, for the result.
    """
    cancelled = False
    reports: list[Report] = []

    async def attempt() -> None:
        reports.append(await execute(task, definition, sink=sink, worker=worker, cancelled=lambda: cancelled))

    running = asyncio.create_task(attempt(), name=f"node {task.node}")
    try:
        await asyncio.wait((running,))
    finally:
        cancelled = True
        running.cancel()
    if not reports:
        running.result()  # it was cancelled before it began, or a mistake of ours
    return reports[0]
