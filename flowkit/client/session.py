"""Where and until when an opened client can be used: one event loop, one process, until it is closed."""

from __future__ import annotations

import asyncio
import os

from flowkit.errors import UsageError

UNOPENED = "a Client is used inside 'async with Client(url) as client:'"
UNOPENED_SYNC = "a synchronous client is used inside 'with Client.sync(url) as client:'"
CLOSED = (
    "this client is closed: what it has not heard of yet cannot be waited for any more. "
    "Use it, and the runs that it began, inside its 'with' block."
)


class Session:
    """The time between opening and closing a client. Runs that the client began belong to it too.

    Every use is checked first, because asyncio does not: a future of another loop, or of a loop in the parent process,
    is waited for without end.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self.closed = False

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that opened the client: its connections are the parent's."""
        return os.getpid() != self._pid

    @property
    def abandoned(self) -> bool:
        """Whether the client can never be closed any more: its event loop is closed, or in another process."""
        return self.foreign or self._loop.is_closed()

    def check_open(self) -> None:
        """Raise unless the client is open in this process.

        Raises:
            UsageError: it is closed, or another process opened it.
        """
        if self.closed:
            raise UsageError(CLOSED)
        if self.foreign:
            raise UsageError(
                f"this client was opened by process {self._pid}, and belongs to it: "
                "open a client in this process, after the fork"
            )

    def check(self) -> None:
        """Raise unless the client is open, and the running event loop is the one that it was opened in.

        Raises:
            UsageError: it is closed, or another process, loop or thread opened it.
        """
        self.check_open()
        if asyncio.get_running_loop() is not self._loop:
            state = "has ended" if self._loop.is_closed() else "is another one than the running one"
            raise UsageError(
                f"the event loop that this client was opened in {state}: open a client in each event loop "
                "(or use Client.sync(url), which serves all threads)"
            )
