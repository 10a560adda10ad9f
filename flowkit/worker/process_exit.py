"""The end of a process in which author code may still run, for which the interpreter would wait.

At exit Python joins every thread that is no daemon, and every thread of every executor, daemon or not. A thread cannot
be ended from outside. So whoever has to end says what is left, and leaves without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from flowkit import streams
from flowkit.worker.stack import place_of_thread

THREADS = 1.0  # seconds for threads to end after everything else has
INTERPRETER = 3.0  # seconds for the interpreter to end after them: it runs what was registered with ``atexit``
_FLUSH = 0.5  # seconds: whoever reads our output may be stuck

_undone: list[Callable[[], object]] = []  # what is done at an exit that does not unwind the stack


def busy_threads() -> list[threading.Thread]:
    """The threads that the interpreter would wait for.

    Those of an executor that have nothing to do are left out: they end when the interpreter does.
    """
    pool = sys.modules.get("concurrent.futures.thread")
    pooled = {} if pool is None else pool._threads_queues  # noqa: SLF001 - the threads that are joined at exit
    frames = sys._current_frames()  # noqa: SLF001 - the one way to see another thread
    found = []
    for thread in threading.enumerate():
        if thread in (threading.main_thread(), threading.current_thread()) or (thread.daemon and thread not in pooled):
            continue
        frame = frames.get(thread.ident or 0)
        waits_for_work = pool is not None and frame is not None and frame.f_code.co_filename == pool.__file__
        manages_no_work = getattr(thread, "pending_work_items", None) == {}  # of a ProcessPoolExecutor
        if not waits_for_work and not manages_no_work:
            found.append(thread)
    return found


def describe_threads(threads: list[threading.Thread]) -> str:
    """Their names, and where they are."""
    return ", ".join(
        f"a ProcessPoolExecutor with {len(calls)} calls"
        if (calls := getattr(thread, "pending_work_items", None)) is not None
        else f"thread {thread.name}, at {place_of_thread(thread.ident)}"
        for thread in threads
    )


def leave_if_busy(code: int, tell: Callable[[str], object]) -> None:
    """End the process when threads of author code do not end within a second; otherwise return.

    Args:
        code: exit code.
        tell: says what is left behind.
    """
    over = time.monotonic() + THREADS
    while busy := busy_threads():
        left = over - time.monotonic()
        if left <= 0:
            tell(f"ended without waiting for {describe_threads(busy)}")
            leave(code)
        busy[0].join(min(left, 0.05))


def bound_exit(code: int) -> None:
    """End the process in three seconds, however far the interpreter has come with ending it by itself."""

    def bound() -> None:
        time.sleep(INTERPRETER)
        leave(code)

    with contextlib.suppress(RuntimeError):  # no thread can be begun any more
        threading.Thread(target=bound, name="flowkit-exit", daemon=True).start()


@contextlib.contextmanager
def undone_at_exit(undo: Callable[[], object]) -> Iterator[None]:
    """Have something undone when the process is left in the middle of this block."""
    _undone.append(undo)
    try:
        yield
    finally:
        _undone.remove(undo)


def leave(code: int) -> NoReturn:
    """End the process now: child processes are terminated, output is flushed, no thread is waited for."""
    terminate_children()

    def last() -> None:
        for undo in _undone:
            with contextlib.suppress(Exception):
                undo()
        logging.shutdown()
        for stream in (streams.results(), sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()

    with contextlib.suppress(RuntimeError):
        flushing = threading.Thread(target=last, name="flowkit-flush", daemon=True)
        flushing.start()
        flushing.join(_FLUSH)
    os._exit(code)


def terminate_children() -> None:
    """Send SIGTERM to the processes that author code has begun, and to theirs.

    Their work runs again elsewhere, or nobody waits for it any more. A process with a session of its own
    (``start_new_session=True``) was meant to live on, and is left alone.
    """
    for pid in _descendants():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == os.getsid(0):
                os.kill(pid, signal.SIGTERM)
    if (processes := sys.modules.get("multiprocessing")) is not None:
        for child in processes.active_children():  # all that can be found where there is no /proc
            child.terminate()


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(entry.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        theirs = children.get(waiting.pop(), [])
        found += theirs
        waiting += theirs
    return found
