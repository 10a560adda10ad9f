"""What people ask of a run: cancel, pause, resume, retry, rerun, signal."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.flow import rerunning, waits
from flowkit.flow.changes import (
    CancelBelow,
    Change,
    EndRun,
    HoldUnsent,
    MoveRun,
    NoteCommand,
    RefuseCommand,
    Reopen,
    Tell,
    Unhold,
)
from flowkit.flow.context import Context
from flowkit.flow.events import Commanded, Event
from flowkit.flow.state import PAUSED, Run, RunStatus, Signal, State
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.messages import CommandKind

FITTING = {  # what a run may be when a command comes
    CommandKind.CANCEL: (RunStatus.RUNNING, RunStatus.PAUSED),
    CommandKind.PAUSE: (RunStatus.RUNNING,),
    CommandKind.RESUME: (RunStatus.PAUSED,),
    CommandKind.RETRY: (RunStatus.FAILED,),
    CommandKind.RERUN: (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED),
    CommandKind.SIGNAL: (RunStatus.RUNNING, RunStatus.PAUSED),
}


def commanded(state: State, event: Commanded, context: Context) -> Iterator[Change | Event]:
    """Apply a command, once by its id."""
    command, run = event.command, state.runs.get(event.run_id)
    if run is None:
        yield from _refuse(None, command, f"this store knows no run {event.run_id!r}")
        return
    if command.id in state.commands:
        yield from _came_again(state, run, command)
        return
    if command.kind is CommandKind.SIGNAL and run.id in state.reopening:
        yield event  # in the next round: the wait that it is for will wait again only then
        return
    refused = _why_not(state, run, command, context)
    yield NoteCommand(run.id, command.id, command.kind, context.now, refused)
    if refused is not None:
        yield from _refuse(run, command, refused)
        return
    match command.kind:
        case CommandKind.CANCEL:
            yield from _cancelled(run, command.grace or 0, context)
        case CommandKind.PAUSE:
            yield MoveRun(run.id, RunStatus.PAUSED)
            yield HoldUnsent(run.id, PAUSED)
            yield Tell(wire.Control(kind="paused", run_id=run.id))
        case CommandKind.RESUME:
            yield MoveRun(run.id, RunStatus.RUNNING)
            yield Unhold(run.id, PAUSED)
        case CommandKind.RETRY:
            yield MoveRun(run.id, RunStatus.RUNNING)
            yield Reopen(run.id, context.now)
        case CommandKind.RERUN:
            yield from rerunning.rerun(state, run, command, context)
        case CommandKind.SIGNAL:
            sent = Signal(command.id, codec.dumps(command.input or {}))
            yield from waits.signal(state, run, command.name or "", sent, context)


def _came_again(state: State, run: Run, command: wire.Command) -> Iterator[Change]:
    """The command was decided before; its answer may not have left, and is given again."""
    reason = state.refusals.get(command.id)
    if reason is not None:
        yield from _refuse(run, command, reason)
    elif command.kind is CommandKind.RERUN:
        yield from rerunning.came_again(state, command)


def _cancelled(run: Run, grace: float, context: Context) -> Iterator[Change]:
    """The run is over at once, in the store and for its clients; only what is running may use up its grace."""
    until = context.now + grace if grace else None
    yield EndRun(
        run_id=run.id, status=RunStatus.CANCELLED, ended_at=context.now, message="cancelled", grace_until=until
    )
    yield CancelBelow(run.id, "", None, context.now, grace)
    yield Tell(wire.Control(kind="cancel", run_id=run.id, **({"grace": grace} if grace else {})))


def _refuse(run: Run | None, command: wire.Command, reason: str) -> Iterator[Change]:
    early = run is None and command.kind is not CommandKind.RERUN  # which is of a run that has ended long ago
    yield RefuseCommand(command.run_id or "", command.id, reason, early)
    if command.kind is CommandKind.RERUN:
        yield rerunning.refused(run, command, reason)


def unfit(kind: CommandKind, run_id: str, status: str) -> str | None:
    """Why a command makes no sense for a run of this status; None when it does."""
    if kind not in FITTING:
        return f"{kind} is not supported by this coordinator"
    if status in FITTING[kind]:
        return None
    return f"cannot {kind} run {run_id!r}: it is {status}, not {' or '.join(FITTING[kind])}"


def _why_not(state: State, run: Run, command: wire.Command, context: Context) -> str | None:
    if command.kind is CommandKind.SIGNAL and not command.name:
        return "a signal has a name"
    why = unfit(command.kind, run.id, run.status)
    if why is None and command.kind is CommandKind.RERUN:
        why = rerunning.why_not(state, command, context)
    return why
