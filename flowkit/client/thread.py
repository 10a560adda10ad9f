"""A client in an event loop of its own, in a thread of its own, for callers that are not async."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.client.session import CLOSED
from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.client.client import Client

T = TypeVar("T")


class ClientThread:
    """An open client, and the thread that runs its event loop. Any thread may use it.

    Args:
        make: makes the client, which is opened and closed in the new thread.

    Raises:
        FlowKitError: the client cannot be opened.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._loop = asyncio.new_event_loop()
        self._serving: concurrent.futures.Future[asyncio.Task[None]] = concurrent.futures.Future()
        self._opened: concurrent.futures.Future[Client] = concurrent.futures.Future()
        self._closing = False
        self._lock = threading.Lock()  # between the last call and the end of the loop, which would never run it
        # The thread refers to nothing of this object, so that one that nobody closes or has any more can be collected.
        arguments = (self._loop, make, self._serving, self._opened)
        self._thread = threading.Thread(target=_serve, args=arguments, name="flowkit client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no memory, or too many threads
            self._loop.close()
            raise
        try:
            self.client = self._opened.result()
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it; an interrupt while waiting cancels it.

        Raises:
            UsageError: the client is closed, or was closed meanwhile.
        """
        with self._lock:
            if self._closing:
                work.close()
                raise UsageError(CLOSED)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise UsageError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Close the client, and end the loop and the thread."""
        self.end()
        self._thread.join()

    def end(self) -> None:
        """Begin to close the client, without waiting for it."""
        serving = self._serving.result()
        with self._lock:
            if not self._closing:
                self._closing = True
                with contextlib.suppress(RuntimeError):  # the client could not be opened: the loop has ended
                    self._loop.call_soon_threadsafe(serving.cancel)


def _serve(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], Client],
    begun: concurrent.futures.Future[asyncio.Task[None]],
    opened: concurrent.futures.Future[Client],
) -> None:
    """Run an event loop with an open client in it until the task of the client is cancelled."""
    try:
        serving = loop.create_task(_hold(make, opened))
        begun.set_result(serving)
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)
        if not opened.done():
            opened.cancel()  # the task was cancelled before it began
        left = asyncio.all_tasks(loop)  # calls of other threads, which wait for an answer
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
    finally:
        loop.close()


async def _hold(make: Callable[[], Client], opened: concurrent.futures.Future[Client]) -> None:
    """Keep a client open until cancelled."""
    try:
        async with make() as client:
            opened.set_result(client)
            await asyncio.Event().wait()
    except BaseException as error:
        if opened.done():  # else whoever waits for the client gets the error
            raise
        opened.set_exception(error)
