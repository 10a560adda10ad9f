"""A child's end of the socket to its parent: it hears what to do, or that the parent is gone, and says it is ready.

Orders travel here and not as signals because a child gets signals from elsewhere too: Ctrl-C goes to every process of
the terminal, systemd's SIGTERM to every process of the unit. Were the parent to send another one, the child would take
it for the second, which abandons what has started. An order may come twice and means the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol

DRAIN, FORCE = b"d", b"f"  # from the parent
READY = b"r"  # from the child


class Ending(Protocol):
    """What a child is told."""

    def drain(self, why: str) -> None:
        """Finish what has started."""

    def force(self, why: str) -> None:
        """Stop now."""

    def orphaned(self) -> None:
        """Finish what has started; no order will come any more."""


class Lifeline:
    """Of one child.

    Args:
        number: of the child, from 1.
        end: of the socket.
    """

    def __init__(self, number: int, end: socket.socket) -> None:
        self.number, self._end = number, end
        end.setblocking(False)

    def listen(self, ending: Ending) -> None:
        """Pass on what the parent says, in the running loop."""
        loop = asyncio.get_running_loop()

        def heard() -> None:
            try:
                orders = self._end.recv(16)
            except BlockingIOError:
                return
            except OSError:  # reset: it is as gone as one that closed
                orders = b""
            if not orders:
                loop.remove_reader(self._end)
                ending.orphaned()
            elif FORCE in orders:
                ending.force("the parent says so")
            else:
                ending.drain("the parent says so")

        loop.add_reader(self._end, heard)

    def ready(self) -> None:
        """Tell the parent that this child takes tasks."""
        with contextlib.suppress(OSError):  # it is gone, which is heard above
            self._end.send(READY)
