"""``Run``: the handle of a run, for the program that started it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from flowkit.client.ids import new_run_id
from flowkit.client.run_end_listener import PendingRun
from flowkit.client.session import Session
from flowkit.errors import FlowKitError, OutputsTooLarge, RunFailed, TimedOut, UsageError
from flowkit.flow.failures import describe
from flowkit.wire import codec
from flowkit.wire import messages as wire


class Run:
    """A run that was started. ``id`` names it everywhere: ``flowkit runs show``, ``flowkit logs``.

    Args:
        run_id: its id.
        pending: receives its end; None when the client does not listen.
        session: of the client that began it.
        command: publishes a command to the coordinator.
        rerun: does so, and waits for the run that it makes.
    """

    def __init__(
        self,
        run_id: str,
        pending: PendingRun | None,
        session: Session,
        command: Callable[[wire.Command], Awaitable[None]],
        rerun: Callable[[wire.Command], Awaitable[Run]],
    ) -> None:
        self.id = run_id
        self._pending, self._session = pending, session
        self._command, self._rerun = command, rerun

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    @property
    def ended(self) -> bool:
        """Whether its end has been received."""
        return self._pending is not None and self._pending.ended

    @property
    def request(self) -> wire.Start | wire.Command | None:
        """The start or rerun that this client published for it; None without one, or if it does not listen."""
        return None if self._pending is None else self._pending.request

    async def end(self, *, timeout: float | None = None) -> wire.RunEnded:
        """Wait for its end, however it ends. An end that is known is returned at any time, even after the client's.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            TimedOut: the run goes on.
            Conflict: its id belongs to a run of another node or with other inputs.
            UsageError: the end is not known, and the client is closed, or of another event loop or process.
        """
        if self._pending is None:
            raise UsageError(
                f"run {self.id!r} cannot be waited for: its client did not start it, or was made with listen=False"
            )
        known = self._pending.end
        if known.done():
            return _end_of(known.result())
        self._session.check()
        try:
            async with asyncio.timeout(timeout):
                outcome = await asyncio.shield(known)  # others may wait for the same end
        except TimeoutError:
            raise TimedOut(
                f"run {self.id} has not ended within {timeout:g} s; it goes on. See 'flowkit runs show {self.id}'."
            ) from None
        return _end_of(outcome)

    async def outputs(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Wait for its outputs.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            RunFailed: it failed or was cancelled.
            TimedOut: the run goes on.
            Conflict: its id belongs to a run of another node or with other inputs.
            OutputsTooLarge: it succeeded, and its outputs are over the size limit of a message.
            UsageError: as ``end``.
        """
        ended = await self.end(timeout=timeout)
        if ended.status != "succeeded":
            why = describe(ended.error.model_dump()) if ended.error is not None else ended.message
            raise RunFailed(self.id, ended.status, why)
        if ended.outputs is None:
            raise OutputsTooLarge(self.id, ended.message)
        return ended.outputs

    async def signal(self, name: str, input: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the field's name
        """Send the run a signal, which ends one ``Wait`` of that name, now or when there is one.

        Args:
            name: of the signal.
            input: a JSON object that the continuation gets as ``signal``.
        """
        body = dict(input or {})
        codec.check(body, "input")
        await self._send(wire.CommandKind.SIGNAL, name=name, input=body)

    async def cancel(self, *, grace: float = 0) -> None:
        """Ask for the run to be cancelled: nothing more of it is begun.

        Args:
            grace: seconds that what is running may go on, to put things in order; its result is dropped all the same.

        Raises:
            UsageError: ``grace`` is no number of seconds.
        """
        await self._send(wire.CommandKind.CANCEL, **({"grace": grace} if grace != 0 else {}))

    async def pause(self) -> None:
        """Ask that no further task of the run is begun, until ``resume``."""
        await self._send(wire.CommandKind.PAUSE)

    async def resume(self) -> None:
        """Ask for the paused run to go on."""
        await self._send(wire.CommandKind.RESUME)

    async def retry(self) -> None:
        """Ask for the failed run to go on from what failed; finished work is kept."""
        await self._send(wire.CommandKind.RETRY)

    async def rerun(
        self,
        *,
        from_task: UUID | str | None = None,
        inputs: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the word of the command line
    ) -> Run:
        """Begin a new run from the middle of this one, which has ended.

        What does not follow from the task is taken over as it is; that task and all that follows run again.

        Args:
            from_task: id of the task; without it the first one.
            inputs: of that task; without them those it had.
            id: of the new run.

        Returns:
            the new run. Waiting for it raises ``Refused`` when the coordinator does: this run has not ended, has no
            such task, or the new id is taken.

        Raises:
            UsageError: an id or the inputs cannot be.
            TimedOut, AccessRefused: as ``Client.command``.
        """
        fields: dict[str, Any] = {"new_run_id": new_run_id() if id is None else id}
        if from_task is not None:
            fields["task_id"] = from_task
        if inputs is not None:
            fields["input"] = codec.frozen(dict(inputs), "inputs")
        return await self._rerun(self._command_message(wire.CommandKind.RERUN, fields))

    async def _send(self, kind: wire.CommandKind, **fields: Any) -> None:
        await self._command(self._command_message(kind, fields))

    def _command_message(self, kind: wire.CommandKind, fields: Mapping[str, Any]) -> wire.Command:
        try:
            return wire.Command(id=uuid4(), kind=kind, run_id=self.id, **fields)
        except ValidationError as error:
            raise UsageError(f"cannot {kind} run {self.id}: {wire.explain(error)}") from None


def _end_of(known: wire.RunEnded | FlowKitError) -> wire.RunEnded:
    if isinstance(known, FlowKitError):
        raise known
    return known
