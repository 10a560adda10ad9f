"""The client for code that is not async: the same methods, over an event loop in a thread of its own.

After a fork the child has no such thread, and the connections are the parent's. So the child leaves them alone, without
a word to the broker, and connects anew when it uses the client. It waits for a run that the parent began by sending
the same start once more, which begins nothing new.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID
from weakref import WeakSet

from flowkit.client.run import Run
from flowkit.client.session import CLOSED, UNOPENED_SYNC
from flowkit.client.thread import ClientThread
from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.client.client import Client

T = TypeVar("T")

_clients: WeakSet[SyncClient] = WeakSet()  # of this process, for what follows a fork
_inherited: list[ClientThread] = []  # of the parent: kept, since to be collected would close its sockets
_importing = threading.RLock()  # not while a thread forks: its child would wait for ever for a module that half exists


class SyncRun:
    """``Run`` for code that is not async."""

    def __init__(self, run: Run, client: SyncClient, thread: ClientThread) -> None:
        self._run, self._client, self._thread = run, client, thread

    def __repr__(self) -> str:
        return repr(self._run)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    def outputs(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Wait for its outputs, as ``Run.outputs``; those that are known are returned even after the client's end."""
        if self._run.ended:
            return _completed(self._run.outputs())
        return self._call(lambda run: run.outputs(timeout=timeout))

    def signal(self, name: str, input: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the field's name
        """Send the run a signal, as ``Run.signal``."""
        self._call(lambda run: run.signal(name, input))

    def cancel(self, *, grace: float = 0) -> None:
        """Ask for the run to be cancelled, as ``Run.cancel``."""
        self._call(lambda run: run.cancel(grace=grace))

    def pause(self) -> None:
        """Ask that no further task of the run is begun, as ``Run.pause``."""
        self._call(lambda run: run.pause())

    def resume(self) -> None:
        """Ask for the paused run to go on."""
        self._call(lambda run: run.resume())

    def retry(self) -> None:
        """Ask for the failed run to go on from what failed, as ``Run.retry``."""
        self._call(lambda run: run.retry())

    def rerun(
        self,
        *,
        from_task: UUID | str | None = None,
        inputs: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the word of the command line
    ) -> SyncRun:
        """Begin a new run from the middle of this one, as ``Run.rerun``."""
        new = self._call(lambda run: run.rerun(from_task=from_task, inputs=inputs, id=id))
        return SyncRun(new, self._client, self._thread)

    def _call(self, work: Callable[[Run], Coroutine[Any, Any, T]]) -> T:
        """Do this with the run, in the thread of the client of this process."""
        thread = self._client.thread()
        if thread is not self._thread:
            self._run, self._thread = self._attached(thread), thread
        return thread.run(work(self._run))

    def _attached(self, thread: ClientThread) -> Run:
        """The run, of a client that did not begin it: the same start or rerun once more begins nothing new."""
        request = self._run.request
        return thread.client.run(self.id) if request is None else thread.run(thread.client.attach(request))


class SyncClient:
    """``Client`` for code that is not async; made by ``Client.sync(url)`` and used in a ``with`` block.

    All threads may share one. A child process of ``os.fork`` (gunicorn with ``--preload``, Celery, multiprocessing) may
    use the one that its parent opened: at its first use there it connects anew.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._open = self._was_open = False
        self._thread: ClientThread | None = None  # of this process
        self._lock = threading.Lock()
        _clients.add(self)

    def __enter__(self) -> Self:
        with self._lock:
            if self._open:
                raise UsageError("this client is open already: use it, or make another one")
            self._thread = self._connected()
            self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            thread, self._thread, self._open = self._thread, None, False
        if thread is not None:
            thread.close()

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None:
            warnings.warn("a SyncClient was not closed: use 'with'", ResourceWarning, stacklevel=2, source=self)
            thread.end()

    def start(
        self,
        node: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the word of the command line
        tags: Mapping[str, str] | None = None,
        delay: float = 0,
        deadline: float | None = None,
    ) -> SyncRun:
        """Begin a run, as ``Client.start``."""
        thread = self.thread()
        start = thread.client.start(node, inputs, id=id, tags=tags, delay=delay, deadline=deadline)
        return SyncRun(thread.run(start), self, thread)

    def start_many(
        self, node: str, inputs: Iterable[Mapping[str, Any]], *, tags: Mapping[str, str] | None = None
    ) -> list[SyncRun]:
        """Begin one run for each of ``inputs``, as ``Client.start_many``."""
        thread = self.thread()
        return [SyncRun(run, self, thread) for run in thread.run(thread.client.start_many(node, inputs, tags=tags))]

    def run(self, run_id: str) -> SyncRun:
        """A run that somebody else began, as ``Client.run``."""
        thread = self.thread()
        return SyncRun(thread.client.run(run_id), self, thread)

    def replay(self, letters: Iterable[int]) -> None:
        """Ask for dead letters to be published again, as ``Client.replay``."""
        thread = self.thread()
        thread.run(thread.client.replay(letters))

    def thread(self) -> ClientThread:
        """The open client with its thread; after a fork a new one, in the child.

        Raises:
            UsageError: it is not open.
            BrokerUnreachable: of a new one.
        """
        thread = self._thread
        if thread is not None:
            return thread
        with self._lock:
            if not self._open:
                raise UsageError(CLOSED if self._was_open else UNOPENED_SYNC)
            if self._thread is None:
                self._thread = self._connected()
            return self._thread

    def _connected(self) -> ClientThread:
        with _importing:
            import encodings.idna  # noqa: F401 - for names of hosts

            import flowkit.broker.rabbit.declare  # noqa: F401 - so that the new thread imports nothing

        self._was_open = True
        return ClientThread(self._make)

    def after_fork(self) -> None:
        """Forget the thread and the connections, which are the parent's: this process is a new child."""
        self._lock = threading.Lock()  # some other thread of the parent may have held it
        if self._thread is not None:
            _inherited.append(self._thread)
            self._thread = None


def _completed(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits for something")


def _before_fork() -> None:
    _importing.acquire()


def _after_fork_in_parent() -> None:
    _importing.release()


def _after_fork_in_child() -> None:
    _importing.release()
    for client in list(_clients):
        client.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
