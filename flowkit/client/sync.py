"""The client for code that is not async: the same methods, over an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from flowkit.client.run import Run
from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.client.client import Client

T = TypeVar("T")


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flowkit client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for it; an interrupt while waiting cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncRun:
    """``Run`` for code that is not async."""

    def __init__(self, run: Run, loop: Loop) -> None:
        self._run, self._loop = run, loop

    def __repr__(self) -> str:
        return repr(self._run)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    def outputs(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Wait for its outputs, as ``Run.outputs``."""
        return self._loop.run(self._run.outputs(timeout=timeout))

    def signal(self, name: str, input: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the field's name
        """Send the run a signal, as ``Run.signal``."""
        self._loop.run(self._run.signal(name, input))

    def cancel(self, *, grace: float = 0) -> None:
        """Ask for the run to be cancelled, as ``Run.cancel``."""
        self._loop.run(self._run.cancel(grace=grace))

    def pause(self) -> None:
        """Ask that no further task of the run is begun, as ``Run.pause``."""
        self._loop.run(self._run.pause())

    def resume(self) -> None:
        """Ask for the paused run to go on."""
        self._loop.run(self._run.resume())

    def retry(self) -> None:
        """Ask for the failed run to go on from what failed, as ``Run.retry``."""
        self._loop.run(self._run.retry())

    def rerun(
        self,
        *,
        from_task: UUID | str | None = None,
        inputs: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the word of the command line
    ) -> SyncRun:
        """Begin a new run from the middle of this one, as ``Run.rerun``."""
        return SyncRun(self._loop.run(self._run.rerun(from_task=from_task, inputs=inputs, id=id)), self._loop)


class SyncClient:
    """``Client`` for code that is not async; made by ``Client.sync(url)`` and used in a ``with`` block."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._open: tuple[Client, Loop] | None = None

    def __enter__(self) -> Self:
        client, loop = self._make(), Loop()
        try:
            loop.run(client.__aenter__())
        except BaseException:
            loop.close()
            raise
        self._open = client, loop
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, loop = self._opened()
        self._open = None
        try:
            loop.run(client.__aexit__(kind, error, trace))
        finally:
            loop.close()

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
        client, loop = self._opened()
        return SyncRun(loop.run(client.start(node, inputs, id=id, tags=tags, delay=delay, deadline=deadline)), loop)

    def start_many(
        self, node: str, inputs: Iterable[Mapping[str, Any]], *, tags: Mapping[str, str] | None = None
    ) -> list[SyncRun]:
        """Begin one run for each of ``inputs``, as ``Client.start_many``."""
        client, loop = self._opened()
        return [SyncRun(run, loop) for run in loop.run(client.start_many(node, inputs, tags=tags))]

    def run(self, run_id: str) -> SyncRun:
        """A run that somebody else began, as ``Client.run``."""
        client, loop = self._opened()
        return SyncRun(client.run(run_id), loop)

    def replay(self, letters: Iterable[int]) -> None:
        """Ask for dead letters to be published again, as ``Client.replay``."""
        client, loop = self._opened()
        loop.run(client.replay(letters))

    def _opened(self) -> tuple[Client, Loop]:
        if self._open is None:
            raise UsageError("a synchronous client is used inside 'with Client.sync(url) as client:'")
        return self._open
