"""Signals of a process from which author code may fork others."""

from __future__ import annotations

import os
import signal
import threading
from functools import cache

_ours: set[signal.Signals] = set()  # what this process handles by a wakeup file descriptor
_forking = threading.local()  # the signal mask of a thread that forks


def ignore(number: int, frame: object) -> None:
    """Do nothing about a signal: it is read from the wakeup file descriptor.

    A program that a forked process executes does not inherit this, as it would inherit ``SIG_IGN``.
    """


def leave_to_parent(*numbers: signal.Signals) -> None:
    """Let processes that author code forks from this one not write their signals into the wakeup socket of this one.

    They inherit the handlers of this process together with that socket. So what is sent to them would be a signal for
    their parent: ``Process.terminate()`` would drain the worker, and one Ctrl-C would count once for each process. In a
    forked process SIGTERM has its default effect. Ctrl-C, which the terminal sends to all, is left to the parent: work
    that has started in a child is finished by the first one too.

    Args:
        numbers: signals that this process handles from now on.
    """
    _ours.update(numbers)
    _register()


def leave_to_parent_no_more(number: signal.Signals) -> None:
    """Let forked processes have this signal as they would without FlowKit."""
    _ours.discard(number)


def default_interrupt() -> None:
    """Let the system end this process at Ctrl-C, without a traceback and whoever holds the interpreter's lock.

    A program that has a handler of its own keeps it.
    """
    here = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
    if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@cache  # the functions are registered once
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_reset)


def _block() -> None:
    """Hold back a signal that comes to the child before its handlers are reset."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ours)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _reset() -> None:
    if _ours:
        signal.set_wakeup_fd(-1)
        for number in _ours:
            signal.signal(number, ignore if number == signal.SIGINT else signal.SIG_DFL)
        _ours.clear()  # a child of a child has the handlers that the author gave to that
    _unblock()
