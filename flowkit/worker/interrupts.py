"""Ctrl-C of a program whose main thread runs author code."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar

from flowkit.worker import event_loop
from flowkit.worker.process_exit import busy_threads, describe_threads, leave
from flowkit.worker.signals import leave_to_parent, leave_to_parent_no_more
from flowkit.worker.stack import place_of_thread
from flowkit.worker.watchdog import Watchdog

T = TypeVar("T")
INTERRUPTED = 130  # exit code, as a shell tells it
SAY = 0.5  # seconds after which it is said what is waited for
_END = b"\0"  # no signal
BOUND = 3.0  # seconds from the first Ctrl-C to the end of the process
HELD = 2.0  # seconds after that until a thread of C, or the watchdog, ends it: they need no lock of the interpreter
_IDLE = 3600.0  # seconds between two looks at the socket, which may not be made blocking


def _let_threads_run(_number: int, _frame: object) -> None:
    """Let the thread that reads signals have the interpreter's lock for a moment.

    C code that holds the lock, such as a regular expression, calls handlers in the main thread and nothing else.
    """
    time.sleep(0.05)


def _end_within(seconds: float) -> None:
    with suppress(ValueError, OSError, AttributeError):  # no stderr
        faulthandler.dump_traceback_later(seconds, exit=True)


class Interrupts:
    """The first Ctrl-C ends in order what runs, the second one ends the process at once.

    A thread reads them, since the main thread may be blocked by author code: then a handler of Python's would run late,
    or raise ``KeyboardInterrupt`` in the middle of that code, which would take it for an error.

    C code of a node that holds the interpreter's lock lets no thread run: then a watchdog kills this process.

    Args:
        say: prints a line.
        style: of the watchdog's log, ``text`` or ``json``.
    """

    def __init__(self, say: Callable[[str], object], style: str = "text") -> None:
        self._say, self._style = say, style
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._over = False  # nothing is left that could be ended in order
        self.interrupted = False

    def __enter__(self) -> Self:
        # Elsewhere signals cannot be handled; and a program that has a handler of its own keeps it.
        self._here = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._here:
            self._watchdog = Watchdog()
            self._read, self._write = self._watchdog.read, self._watchdog.write
            signal.signal(signal.SIGINT, _let_threads_run)
            self._before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            leave_to_parent(signal.SIGINT)
            self._watchdog.start(BOUND + HELD, HELD, self._style)
            self._thread = threading.Thread(target=self._watch, name="flowkit-interrupts", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._here:
            if self.interrupted:
                faulthandler.cancel_dump_traceback_later()
            signal.set_wakeup_fd(self._before)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            leave_to_parent_no_more(signal.SIGINT)
            with suppress(OSError):  # it is closed in a forked process, which has no such thread either
                self._write.send(_END)
            self._thread.join()
            self._watchdog.end()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` in a new event loop; the first Ctrl-C cancels it.

        Raises:
            KeyboardInterrupt: Ctrl-C ended it.
        """
        try:
            return event_loop.run(main, began=self._began)
        except BaseException:
            if self.interrupted:
                raise KeyboardInterrupt from None
            raise

    def wait_for_threads(self, why: str) -> None:
        """Return when no thread of author code is left; what is waited for is said after half a second.

        Args:
            why: what has ended already.
        """
        self._over = not self.interrupted
        say_at: float | None = time.monotonic() + SAY
        while busy := busy_threads():
            if say_at is not None and time.monotonic() > say_at and not self.interrupted:
                self._say(f"{why}; waiting for {describe_threads(busy)}; Ctrl-C ends it at once")
                say_at = None
            busy[0].join(0.05)

    def _began(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        self._loop, self._task = loop, task
        if self.interrupted:
            self._cancel()

    def _watch(self) -> None:
        bound: float | None = None
        said = False
        while True:
            wait = _IDLE if bound is None else max(0.01, bound - time.monotonic() - (0 if said else BOUND - SAY))
            self._read.settimeout(wait)
            try:
                numbers = self._read.recv(64, socket.MSG_PEEK)
            except TimeoutError:
                if bound is None:
                    continue
                if said:
                    leave(INTERRUPTED)
                said = True
                self._tell(f"interrupted: waiting for {self._waits_for()}; Ctrl-C again ends at once")
                continue
            if _END in numbers:
                return
            for _ in range(numbers.count(signal.SIGINT)):
                last = self.interrupted or self._over
                if not self.interrupted:
                    _end_within(BOUND + HELD)
                if last:
                    self._tell("interrupted: ended at once")
                    leave(INTERRUPTED)
                self.interrupted = True
                bound = time.monotonic() + BOUND
                self._cancel()
            # Only now that the end is bounded: each call to the system releases the lock, and a node may keep it.
            self._read.recv(len(numbers))

    def _tell(self, text: str) -> None:
        """Say it, but not for long: whoever reads stderr may be stuck."""
        saying = threading.Thread(target=self._say, args=(text,), name="flowkit-interrupts", daemon=True)
        saying.start()
        saying.join(0.2)

    def _cancel(self) -> None:
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _waits_for(self) -> str:
        waits = []
        if self._loop is not None and not self._loop.is_closed():
            blocking = asyncio.current_task(self._loop)
            if blocking is not None:
                waits.append(f"{blocking.get_name()}, at {place_of_thread(threading.main_thread().ident)}")
            else:
                names = [task.get_name() for task in asyncio.all_tasks(self._loop)]
                waits += [name for name in names if name.startswith("node ")]
        if busy := busy_threads():
            waits.append(describe_threads(busy))
        return ", ".join(waits) or "what is being put in order"
