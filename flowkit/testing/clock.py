"""An event loop that never waits for time: where another one would, this one moves its clock."""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from flowkit.worker.event_loop import handle_exception, of_callback, warn_of_exit, with_context

T = TypeVar("T")
PATIENCE = 0.5  # real seconds that everything stands still for a thread
RESOLUTION = 1e-6  # virtual seconds: timers this close together run in the same turn


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready; then it is the time of the next timer.

    Its ``time`` counts what was lived through, second by second. ``wall`` is that and what was slept besides.

    Args:
        begins: the wall's time at the beginning, Unix seconds.
    """

    def __init__(self, begins: float) -> None:
        self.now = 0.0
        self.slept = 0.0
        self.threads_at_work = 0
        self._begins = begins
        self._threads = ThreadPoolExecutor(thread_name_prefix="simulated")
        super().__init__(_Selector(self))
        self._clock_resolution = RESOLUTION
        self.set_exception_handler(handle_exception)

    def time(self) -> float:
        """Seconds that were lived through."""
        return self.now

    def wall(self) -> float:
        """Unix seconds, as store and processes see them."""
        return self._begins + self.now + self.slept

    def sleep_until(self, wall: float) -> None:
        """Let the wall's clock leap, as on a machine that is suspended: no timer of this loop runs for it."""
        self.slept += max(0.0, wall - self.wall())

    def jump(self, seconds: float) -> None:
        """Set the wall's clock, as somebody might whose clock was wrong: forth, or back."""
        self.slept += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run it in a thread, and wait for it here, so that the order of what happens is always the same.

        What takes longer than ``PATIENCE`` goes on beside the others: it may be waiting for one of them.
        """
        working = (executor or self._threads).submit(*with_context(executor, func, *args))
        concurrent.futures.wait([working], timeout=PATIENCE)
        if not working.done():
            self.threads_at_work += 1
            working.add_done_callback(lambda _: self.call_soon_threadsafe(self._thread_ended))
        return asyncio.wrap_future(working, loop=self)

    def close(self) -> None:
        """Close it; its threads end when they have done what they do."""
        self._threads.shutdown(wait=False)
        super().close()

    def _thread_ended(self) -> None:
        self.threads_at_work -= 1


def run_scene(runner: asyncio.Runner, scene: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also when a task that a main began beside it exits; as in a worker, that ends alone.

    Raises:
        KeyboardInterrupt: by Ctrl-C.
    """
    task = runner.get_loop().create_task(scene)
    while True:
        try:
            return runner.run(_result_of(task))
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or not of_callback(task.get_loop(), error) or _is_signal(error):
                raise
            warn_of_exit(error)


async def _result_of(task: asyncio.Task[T]) -> T:
    return await task


def _is_signal(error: BaseException) -> bool:
    """Whether the runner's handler raised it, for the second Ctrl-C."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].co_filename == asyncio.runners.__file__


class _Selector(selectors.DefaultSelector):
    """Looks without waiting; while threads and sockets may answer, time passes as it really does."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.threads_at_work or len(self.get_map()) > 1:  # one socket is the loop's own: threads wake it
            began = monotonic()
            ready = super().select(timeout)
            self._loop.now += monotonic() - began if ready or timeout is None else timeout
            return ready
        if timeout is None:
            raise RuntimeError("nothing is left that could ever happen: everybody waits, and nobody for time")
        self._loop.now += timeout
        return []
