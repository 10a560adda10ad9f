"""Where the author's code runs: in the worker's own loop, or in a thread which it may block without harm.

Whatever blocks a loop also stops all else that lives there. So a worker process keeps connection, heartbeats,
announcements and signals in one loop and the nodes in another: code that blocks for a minute holds up the other tasks
of the nodes, and nothing else. In one process with everything (``flowkit run``, simulations) there is one loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from flowkit.worker import event_loop
from flowkit.worker.stack import place_of_thread

T = TypeVar("T")
Make = Callable[[], Coroutine[Any, Any, T]]
Ended = Callable[["asyncio.Task[T]"], object]

_log = logging.getLogger(__name__)
_LAG = 1.0  # seconds for which a loop may be blocked and nobody is told
_END = 0.5  # seconds for the loop of the nodes to end; a thread that is blocked is left behind


class Job(Protocol):
    """Something that was started."""

    def cancel(self) -> object:
        """Ask it to end."""


class Stage(Protocol):
    """Runs coroutines of author code."""

    def begin(self) -> None:
        """Be ready to run; called in the worker's loop."""

    def start(self, make: Make[T], name: str, ended: Ended[T]) -> Job:
        """Run ``make()`` as an asyncio task of its own.

        Nobody waits for it in a task of the worker's: that would double what a small task costs.

        Args:
            make: makes the coroutine, where it is to run.
            name: of the task.
            ended: called in the worker's loop, with the task that is done; it must not raise.
        """

    async def watch(self) -> None:
        """Warn, until cancelled, whenever author code blocks the loop that it runs in."""

    def end(self) -> None:
        """Run nothing more."""


class SameLoop:
    """The worker's own loop."""

    def begin(self) -> None:
        """It turns already."""

    def start(self, make: Make[T], name: str, ended: Ended[T]) -> Job:
        """Run it here."""
        task = asyncio.get_running_loop().create_task(make(), name=name)
        task.add_done_callback(ended)
        return task

    async def watch(self) -> None:
        """Look how late this very task is: of a blocked loop it is told afterwards."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG
            await asyncio.sleep(_LAG)
            late = loop.time() - due
            if late > _LAG:
                _warn(f"the event loop was blocked for {late:.1f} s by a node", late)

    def end(self) -> None:
        """It is not ours to end."""


class OwnThread:
    """A thread with a loop of its own.

    Args:
        new_loop: makes the loop, such as uvloop's.
    """

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._loop = event_loop.new_loop(new_loop)
        # A daemon: author code that blocks for ever must not keep the process from ending.
        self._thread = threading.Thread(target=self._turn, name="flowkit-nodes", daemon=True)
        self._there = _Mailbox(self._loop)
        self._back: _Mailbox | None = None
        self._ending = False

    def begin(self) -> None:
        """Start the thread."""
        self._back = _Mailbox(asyncio.get_running_loop())
        self._thread.start()

    def start(self, make: Make[T], name: str, ended: Ended[T]) -> Job:
        """Run it in the thread."""
        assert self._back is not None, "begin comes first"
        job = _Job(self._loop, make, name, ended, self._there, self._back)
        self._there.post(job.begin)
        return job

    async def watch(self) -> None:
        """Ask the loop for an answer again and again: of a blocked one it is told while it is blocked, and by whom."""
        back, loop = self._back, asyncio.get_running_loop()
        assert back is not None, "begin comes first"
        while True:
            answered, asked, told = asyncio.Event(), loop.time(), _LAG
            self._there.post(lambda answered=answered: back.post(answered.set))  # type: ignore[misc]
            while not answered.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(told - (loop.time() - asked)):
                        await answered.wait()
                        continue
                so_far = loop.time() - asked
                _warn(f"{self._blocked_by()} blocks the loop of the nodes, for {so_far:.0f} s already", so_far)
                told *= 2
            if told > _LAG:
                _log.info("the loop of the nodes turns again, after %.1f s", loop.time() - asked)
            await asyncio.sleep(_LAG)

    def end(self) -> None:
        """Cancel what still runs there, and end the thread; one that is blocked is left behind."""
        if not self._thread.is_alive():
            return
        self._ending = True
        with suppress(RuntimeError):  # it has ended meanwhile
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END)

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._ending:  # nor may the author's code end it
                self._turn_until_stopped()
        finally:
            event_loop.end(self._loop)

    def _turn_until_stopped(self) -> None:
        """Let the loop turn until somebody stops it, or a task that a node began beside its main exits."""
        try:
            self._loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            event_loop.warn_of_exit(error)

    def _blocked_by(self) -> str:
        task = asyncio.current_task(self._loop)
        who = "something" if task is None else task.get_name()
        where = place_of_thread(self._thread.ident)
        return who if where is None else f"{who}, at {where},"


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    """An asyncio task of another thread's loop."""

    loop: asyncio.AbstractEventLoop
    make: Make[T]
    name: str
    ended: Ended[T]
    there: _Mailbox
    back: _Mailbox
    task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Make the task; called there."""
        self.task = self.loop.create_task(self.make(), name=self.name)
        self.task.add_done_callback(self._tell)

    def cancel(self) -> None:
        """Ask the task to end; it was begun before it can be asked, as the mailbox keeps the order."""
        self.there.post(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _tell(self, task: asyncio.Task[T]) -> None:
        self.back.post(partial(self.ended, task))


class _Mailbox:
    """Calls for a loop of another thread: many at a time for one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()  # which is safe to fill here and empty there
        self._woken = False

    def post(self, call: Callable[[], object]) -> None:
        """Make this call there, in the order of posting."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # it is closed: nobody is there any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first: what is posted from now on wakes once more, perhaps for nothing
        for _ in range(len(self._calls)):  # what they post in turn comes later, so that others have their turn
            self._calls.popleft()()


def _warn(what: str, seconds: float) -> None:
    _log.warning("%s. Move blocking calls into 'await asyncio.to_thread(…)'", what,
                 extra={"action": "loop_blocked", "seconds": seconds})  # fmt: skip
