"""Event loops that run author code: what an author may do in one, and an end within bounded time."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
NewLoop = Callable[[], asyncio.AbstractEventLoop]

_log = logging.getLogger(__name__)
_END = 0.5  # seconds for cancelled tasks, and then for asynchronous generators, to end with their loop


def new_loop(make: NewLoop | None = None) -> asyncio.AbstractEventLoop:
    """Make an event loop whose ``run_in_executor`` takes the context of the caller along.

    In plain asyncio only ``to_thread`` does that. In a thread without it ``node.get_inputs()`` finds no task, and what
    is logged there reaches no run.

    Args:
        make: makes the loop, such as uvloop's.
    """
    loop = (make or asyncio.new_event_loop)()
    plain = loop.run_in_executor

    def run_in_executor(executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return plain(executor, *with_context(executor, function, *args))

    loop.set_exception_handler(handle_exception)
    loop.run_in_executor = run_in_executor  # type: ignore[method-assign, assignment]
    return loop


def with_context(executor: Executor | None, function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """A function and its arguments for an executor; with the context of the caller when it runs in a thread.

    Args:
        executor: None is the loop's own, which has threads. An executor of processes pickles what it gets, and a
            context cannot be pickled.
        function: what to run there.
        args: its arguments.
    """
    if executor is None or isinstance(executor, ThreadPoolExecutor):
        return (partial(contextvars.copy_context().run, function, *args),)
    return (function, *args)


def run(main: Coroutine[Any, Any, T], make: NewLoop | None = None, *, began: Callable[..., object] | None = None) -> T:
    """Run ``main`` in a new loop, as ``asyncio.run`` does, but wait for nothing that does not end.

    Args:
        main: what to run.
        make: makes the loop, such as uvloop's.
        began: called with the loop and the asyncio task of ``main`` before it begins.
    """
    loop = new_loop(make)
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(main)
        if began is not None:
            began(loop, task)
        return run_until_done(loop, task)
    finally:
        try:
            end(loop)
        finally:
            asyncio.set_event_loop(None)


def handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody waits for; but ``warn_of_exit`` has told of a task that exits."""
    if not isinstance(context.get("exception"), SystemExit | KeyboardInterrupt):
        loop.default_exception_handler(context)


def run_until_done(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    """Turn the loop until the task is done, also when a task beside it exits, or stops the loop."""
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            if not of_callback(loop, error):
                raise
            if not task.done() or task.cancelled() or task.exception() is not error:
                warn_of_exit(error)
    return task.result()


def of_callback(loop: asyncio.AbstractEventLoop, error: BaseException) -> bool:
    """Whether a task or a callback of the loop raised this, and no handler of a signal while the loop waited."""
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return not isinstance(loop, asyncio.BaseEventLoop) or asyncio.Handle._run.__code__ in frames  # noqa: SLF001


def warn_of_exit(error: BaseException) -> None:
    """Say that a task or a callback of author code exits.

    Asyncio lets ``sys.exit()`` there through to whoever turns the loop. It has ended that task, and with it a main that
    waits for it; the other tasks of the loop have nothing to do with it.
    """
    _log.warning("a task that a node began beside its main raised %r, which ends that task alone", error,
                 extra={"action": "exit_ignored"})  # fmt: skip


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs in the loop, give it a moment to end, and close the loop; no thread is waited for."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            run_until_done(loop, loop.create_task(_wait(left)))
        for task in left:
            if not task.done():  # nothing more can be said to it, and the process is about to end
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio.gather does
                _log.warning("%s does not end when it is cancelled", task.get_name(), extra={"action": "task_left"})
        run_until_done(loop, loop.create_task(_wait({loop.create_task(loop.shutdown_asyncgens())})))
    finally:
        loop.close()


async def _wait(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=_END)
