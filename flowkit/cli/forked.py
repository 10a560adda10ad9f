"""Child processes that the code of nodes forks from a worker."""

from __future__ import annotations

import os
import signal
import threading
from functools import cache

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_forking = threading.local()  # the signal mask of a thread that forks
_is_child = False


@cache  # the functions are registered once
def reset_signals_in_children() -> None:
    """Let SIGTERM and Ctrl-C end the processes that are forked from now on, as those of any program.

    They inherit the handlers of this process, and the socket by which its event loop hears of signals: a child that
    ``Process.terminate()`` is to end would go on, and the worker would stop in its place.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_reset)


def _block() -> None:
    """Hold back a signal that comes to the child before its handlers are reset."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _reset() -> None:
    global _is_child  # noqa: PLW0603 - a child of a child has the handlers that the author gave to that
    if not _is_child:
        _is_child = True
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _unblock()
