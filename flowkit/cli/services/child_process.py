"""One child of a parent: forked, told what to do, listened to, buried, and forked anew."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable

from flowkit.cli.services.control_pipe import READY, Lifeline

_NAMES = ("SIGTERM", "SIGINT", "SIGCHLD")  # Windows, which has no fork either, has no SIGCHLD
HEARD = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # by the parent


class Child:
    """The processes of one number, one after the other.

    Args:
        number: from 1.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0  # while there is none
        self.ready = False
        self.began = 0.0  # when it was forked, by the monotonic clock
        self.deaths = 0  # early ones in a row
        self.due: float | None = None  # when the next one is forked
        self.link: socket.socket | None = None

    def fork(self, of_the_parent: Iterable[socket.socket | None]) -> Lifeline | None:
        """Begin a process.

        Args:
            of_the_parent: what the process has to close. Held by a sibling, the parent's end of a lifeline would stay
                open when the parent dies.

        Returns:
            in the new process its lifeline; in the parent None.

        Raises:
            OSError: no memory, no process left.
        """
        self.due, self.ready, self.began = None, False, time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair()
        # A signal that comes to the child before it has left the parent's handlers behind waits until it has.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            pid = os.fork()
            if pid == 0:
                _leave_behind((ours, *of_the_parent))
                return Lifeline(self.number, theirs)
        except OSError:
            ours.close()
            theirs.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        ours.setblocking(False)
        self.pid, self.link = pid, ours
        return None

    def tell(self, order: bytes) -> None:
        """Send an order; one that cannot hear it any more dies."""
        if self.link is not None:
            with contextlib.suppress(OSError):
                self.link.send(order)

    def listen(self) -> bool:
        """Read what it says; whether it has just become ready."""
        if self.link is None:
            return False
        said = b""
        with contextlib.suppress(OSError):
            said = self.link.recv(16)
        if not said:  # it is dead or dying: SIGCHLD says so
            self.link.close()
            self.link = None
        became = READY in said and not self.ready
        self.ready = self.ready or became
        return became

    def bury(self) -> int:
        """Let go of the process, which is dead; its pid."""
        pid, self.pid = self.pid, 0
        if self.link is not None:
            self.link.close()
            self.link = None
        return pid


def hear_by(wake: socket.socket) -> None:
    """Have signals come as bytes through a socket."""
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    for number in HEARD:
        signal.signal(number, _nothing)  # a handler has to be there for the byte to come


def _leave_behind(ends: Iterable[socket.socket | None]) -> None:
    signal.set_wakeup_fd(-1)
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the parent too, which says what follows. Until the worker hears for itself, it is not for it.
    signal.signal(signal.SIGINT, _nothing)
    for end in ends:
        if end is not None:
            end.close()


def _nothing(number: int, frame: object) -> None:
    """Let a signal be heard by the byte alone."""
