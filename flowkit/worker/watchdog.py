"""A watchdog for the case in which no code of Python can run: C code of a node holds the interpreter's lock.

A signal that comes at such a moment is noted by the interpreter's handler, which is C code, and seen by no code of
Python until the lock is released. All that happens without the lock is that the handler writes a byte to the wakeup
file descriptor. So a small process (``watchdog_process.py``) watches whether these bytes are read, and kills this
process when they are not.

    signal ─► handler in C ─► byte in a socket ─┬─► read by the event loop, which ends the process in bounded time
                                                └─► seen by the watchdog, which kills it when the loop does not read
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPT = Path(__file__).with_name("watchdog_process.py")
END = 1.0  # seconds for the watchdog to end
KILLED = "Killed"

_log = logging.getLogger(__name__)


class Watchdog:
    """The socket between the interpreter's signal handler, whoever reads signals and the watchdog process.

    Attributes:
        read: the end from which signals are read, one byte each. The flag that makes a socket non-blocking is common to
            all processes that hold it, so it may get a timeout, but may not be made blocking.
        write: the end for the signal handler.
    """

    def __init__(self) -> None:
        self.read, self.write = socket.socketpair()
        self.read.setblocking(False)
        self.write.setblocking(False)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, first: float, second: float, style: str, killed: str = KILLED) -> bool:
        """Start the process, where that is possible; returns whether it was.

        It has a session of its own, so that neither Ctrl-C nor what ends the child processes of nodes reaches it.

        Args:
            first: seconds for which a signal may stay unread.
            second: seconds from the moment at which there are two.
            style: of the log, ``text`` or ``json``.
            killed: what is logged when it kills this process.
        """
        if not hasattr(os, "fork") or not sys.executable or not SCRIPT.is_file():
            return False
        words = (str(os.getpid()), repr(first), repr(second), str(_dump_stacks_at_signal()), style, killed)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter, with a file of this package
                [sys.executable, "-I", "-S", str(SCRIPT), *words],
                stdin=self.read.fileno(), stdout=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:  # no process left, no memory
            _log.warning("no watchdog: %s. A signal is not seen while C code of a node holds the interpreter's lock",
                         error.strerror, extra={"action": "no_watchdog"})  # fmt: skip
            return False
        os.register_at_fork(after_in_child=self._close)  # or the watchdog would not see this process end
        return True

    def read_signals(self, loop: asyncio.AbstractEventLoop, received: Callable[[signal.Signals], object]) -> None:
        """Call ``received`` for each signal, in place of the loop's own handlers, which must be there.

        They serve again should the loop take the wakeup file descriptor back, as uvloop does when it is run once more.
        """
        signal.set_wakeup_fd(self.write.fileno(), warn_on_full_buffer=False)
        loop.add_reader(self.read, self._read_signals, received)

    def end(self) -> None:
        """End the process, and wait for it; the wakeup file descriptor must be another one by now."""
        forked = self.write.fileno() < 0  # this is another process than the watched one
        self._close()
        if self._process is not None and not forked:
            self._process.kill()  # it would end by itself, but after some milliseconds
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END)

    def _read_signals(self, received: Callable[[signal.Signals], object]) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = self.read.recv(4096, socket.MSG_PEEK)
            try:
                for number in numbers:
                    if number in (signal.SIGTERM, signal.SIGINT):  # others are those of node files
                        received(signal.Signals(number))
            finally:
                # Only now: each call to the system releases the lock, and a node may take it and keep it.
                self.read.recv(len(numbers))

    def _close(self) -> None:
        for end in (self.write, self.read):
            if (number := end.detach()) >= 0:  # as close() waits for uvloop, which in a forked process never lets go
                os.close(number)


@contextlib.contextmanager
def watchdog(first: float, second: float, style: str, killed: str = KILLED) -> Iterator[Watchdog | None]:
    """Have this process killed when its event loop does not read a signal; None where that is not possible.

    Args:
        first: seconds for which a signal may stay unread.
        second: seconds from the moment at which there are two.
        style: of the log, ``text`` or ``json``.
        killed: what is logged when it is killed.
    """
    watching = Watchdog()
    started = watching.start(first, second, style, killed)
    try:
        yield watching if started else None
    finally:
        if started:
            signal.set_wakeup_fd(-1)
        watching.end()


def _dump_stacks_at_signal() -> int:
    """Have C code write the stacks of all threads to stderr at a signal that nobody uses; 0 when there is none."""
    number = getattr(signal, "SIGRTMAX", None)
    if number is None or signal.getsignal(number) is not signal.SIG_DFL:
        return 0
    try:
        faulthandler.register(number, all_threads=True)
    except (ValueError, OSError, AttributeError, RuntimeError):  # no stderr
        return 0
    return int(number)
