"""Between the core's values and rows of the tables: columns in one order, said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkit.flow.state import Run, RunStatus, Scope, ScopeStatus, Task, TaskStatus
from flowkit.store.database import Row
from flowkit.store.protocol import DeadLetter, EndedRun, Sendable
from flowkit.store.views import DeadLetterRow

if TYPE_CHECKING:
    from flowkit.flow.changes import EndRun, MoveTask, NoteCommand, SettleTask


def _outstanding(status: str) -> str:
    return "(" + " OR ".join(f"{status} = '{one}'" for one in ("held", "queued", "running", "waiting")) + ")"


# Spelled as in the indexes: SQLite compares the text. It would make a table of its own out of each IN (…), for each row
# that it writes, to find out whether this belongs into the index: a fifth of what a step costs there.
OUTSTANDING, T_OUTSTANDING = _outstanding("status"), _outstanding("t.status")

BY_STATUS = "(status || '')"  # as the index of runs by status has it

# Of tasks that are named by their keys. Spelled so that no index of what is outstanding fits: as long as its statistics
# know of nothing outstanding, PostgreSQL would look for each key through all of that.
IS_QUEUED = "t.status || '' = 'queued'"
IS_SENT = "t.status || '' IN ('queued', 'running')"

AT_ONCE = 0.0  # unsent since ever: the relay takes it at its next look

RUN = (
    "id", "node", "status", "tags", "parent", "started_at", "deadline", "traceparent", "tasks", "root", "ended_at",
    "outputs", "outputs_from", "message", "error", "origin",
)  # fmt: skip
SCOPE = (
    "run_id", "path", "parent", "status", "outstanding", "branches", "opener", "continuation", "return_exceptions",
    "max_concurrency", "due",
)  # fmt: skip
TASK_KEY = ("run_id", "id")
NEW_TASK = (
    *TASK_KEY, "path", "scope", "node", "status", "attempt", "tries", "held_for", "due", "inputs", "inputs_from",
    "wait", "signal", "handler", "deaths", "created_at", "unsent_since", "sent_at",
    "slot", "depth", "unfolded",
)  # fmt: skip
SETTLED = (
    "status", "attempt", "outputs", "nodes", "leaf_of", "message", "error", "first_started_at", "started_at",
    "finished_at", "worker", "due", "unsent_since", "leased_until",
)  # fmt: skip
MOVED = (
    "status", "attempt", "tries", "held_for", "due", "error", "sent_at", "first_started_at", "started_at", "worker",
    "deaths", "unsent_since", "leased_until",
)  # fmt: skip
DEAD = ("id", "reason", "detail", "queue", "body", "properties", "at", "run_id")
COMMAND = ("id", "run_id", "kind", "at", "refused")
ENDED = ("status", "ended_at", "outputs", "outputs_from", "message", "error", "grace_until", "unannounced_since")

CANCELLED_IN_SLOT = "SELECT t.slot, count(*) FROM cancelled_attempts AS t"  # to be grouped by the slot

# What the core needs of a row: no payloads
RUN_STATE = (
    "SELECT t.id, t.node, t.status, t.tags, t.parent, t.started_at, t.deadline, t.traceparent, t.tasks, t.ended_at, "
    "t.outputs_from, t.message, t.origin, t.trimmed, t.trimmed_before, t.pruned_at FROM runs AS t"
)
SCOPE_STATE = f"SELECT {', '.join(f't.{name}' for name in SCOPE)} FROM scopes AS t"
TASK_STATE = (
    "SELECT t.run_id, t.id, t.path, t.scope, t.node, t.status, t.attempt, t.tries, t.held_for, t.due, t.inputs_from, "
    "t.leaf_of, t.wait, t.signal, t.handler, t.deaths, t.created_at, t.sent_at, t.first_started_at, t.started_at, "
    "t.finished_at, t.worker, t.slot, t.leased_until, t.depth, t.unfolded FROM tasks AS t"
)
SIGNAL = "SELECT t.run_id, t.name, t.seq, t.id, t.input FROM signals AS t"
PAYLOAD = (
    "SELECT t.run_id, t.id, t.node, coalesce(t.inputs, source.outputs) FROM tasks AS t "
    "LEFT JOIN tasks AS source ON source.run_id = t.run_id AND source.id = t.inputs_from"
)
ROOT_INPUTS = "SELECT t.id, root.inputs FROM runs AS t JOIN tasks AS root ON root.run_id = t.id AND root.id = t.root"
SENDABLE = (
    "SELECT t.run_id, t.id, t.node, t.attempt, t.tries, coalesce(t.inputs, source.outputs), t.first_started_at, "
    "run.traceparent, t.unsent_since FROM tasks AS t JOIN runs AS run ON run.id = t.run_id "
    "LEFT JOIN tasks AS source ON source.run_id = t.run_id AND source.id = t.inputs_from"
)
ENDED_RUN = (
    "SELECT t.id, t.node, t.status, coalesce(t.outputs, source.outputs), t.message, t.error, t.ended_at, "
    "root.inputs, t.parent FROM runs AS t "
    "LEFT JOIN tasks AS source ON source.run_id = t.id AND source.id = t.outputs_from "
    "LEFT JOIN tasks AS root ON root.run_id = t.id AND root.id = t.root"
)

# A look into a dict costs a tenth of a call of the enum.
RUN_STATUS = {str(status): status for status in RunStatus}
SCOPE_STATUS = {str(status): status for status in ScopeStatus}
TASK_STATUS = {str(status): status for status in TaskStatus}

IdIn = Callable[[UUID], Any]
IdOut = Callable[[Any], UUID]


def utf8(text: str) -> bytes:
    """Text that others wrote, as it is kept. What UTF-8 cannot say (lone surrogates) is spelled out."""
    return text.encode("utf-8", "backslashreplace")


def _maybe_utf8(text: str | None) -> bytes | None:
    return None if text is None else utf8(text)


def _maybe_text(kept: bytes | None) -> str | None:
    return None if kept is None else kept.decode()


def run_row(run: Run, root: UUID | None, id_in: IdIn) -> Row:
    """A new run; ``root`` is its first task."""
    return (
        run.id, run.node, str(run.status), run.tags, run.parent, run.started_at, run.deadline,
        _maybe_utf8(run.traceparent), run.tasks, root and id_in(root), run.ended_at, run.outputs,
        run.outputs_from and id_in(run.outputs_from), utf8(run.message), run.error, run.origin,
    )  # fmt: skip


def scope_row(scope: Scope, id_in: IdIn) -> Row:
    """A new scope."""
    return (
        scope.run_id, scope.path, scope.parent, str(scope.status), scope.outstanding, scope.branches,
        scope.opener and id_in(scope.opener), scope.then, scope.return_exceptions,
        scope.max_concurrency, scope.due,
    )  # fmt: skip


def new_task_row(task: Task, id_in: IdIn) -> Row:
    """A new task as long as nothing happened to it."""
    unsent = task.created_at if task.status is TaskStatus.QUEUED and task.sent_at is None else None
    return (
        task.run_id, id_in(task.id), task.path, task.scope, task.node, str(task.status), task.attempt, task.tries,
        task.held_for, task.due, task.inputs, task.inputs_from and id_in(task.inputs_from), task.wait,
        _maybe_utf8(task.signal), task.handler, task.deaths, task.created_at, unsent, task.sent_at,
        _maybe_utf8(task.slot), task.depth, task.unfolded,
    )  # fmt: skip


def settled_row(change: SettleTask, id_in: IdIn) -> Row:
    """Keys and ``SETTLED``: nothing is due any more, nothing to be sent."""
    return (
        change.run_id, id_in(change.task_id), str(change.status), change.attempt, change.outputs, change.nodes,
        change.leaf_of, utf8(change.message), change.error, change.first_started_at, change.started_at,
        change.finished_at, _maybe_utf8(change.worker), None, None, None,
    )  # fmt: skip


def moved_row(change: MoveTask, now: float, id_in: IdIn) -> Row:
    """Keys and ``MOVED``; a queued task that was not sent yet is so since ``now``."""
    unsent = now if change.status is TaskStatus.QUEUED and change.sent_at is None else None
    return (
        change.run_id, id_in(change.task_id), str(change.status), change.attempt, change.tries, change.held_for,
        change.due, change.error, change.sent_at, change.first_started_at, change.started_at,
        _maybe_utf8(change.worker), change.deaths, unsent, change.leased_until,
    )  # fmt: skip


def command_row(note: NoteCommand, id_in: IdIn) -> Row:
    """A command that was decided."""
    return (id_in(note.id), note.run_id, note.kind, note.at, _maybe_utf8(note.refused))


def ended_row(change: EndRun, id_in: IdIn) -> Row:
    """The key and ``ENDED``: nobody has announced it yet."""
    return (
        change.run_id, str(change.status), change.ended_at, change.outputs,
        change.outputs_from and id_in(change.outputs_from), utf8(change.message), change.error,
        change.grace_until, change.ended_at,
    )  # fmt: skip


def read_run(row: Row, id_out: IdOut) -> Run:
    """A row of ``RUN_STATE``, but for ``pruned_at``."""
    (
        run_id, node, status, tags, parent, started_at, deadline, traceparent, tasks, ended_at, outputs_from, message,
        origin, trimmed, trimmed_before,
    ) = row  # fmt: skip
    return Run(
        id=run_id, node=node, status=RUN_STATUS[status], tags=tags, parent=parent, started_at=started_at,
        deadline=deadline, traceparent=_maybe_text(traceparent), tasks=tasks, ended_at=ended_at,
        outputs_from=outputs_from and id_out(outputs_from), message=message.decode(), origin=origin,
        trimmed=trimmed or 0, trimmed_before=trimmed_before,
    )  # fmt: skip


def read_scope(row: Row, id_out: IdOut) -> Scope:
    """A row of ``SCOPE_STATE``."""
    run_id, path, parent, status, outstanding, branches, opener, then, return_exceptions, window, due = row
    return Scope(
        run_id=run_id, path=path, parent=parent, status=SCOPE_STATUS[status], outstanding=outstanding,
        branches=branches, opener=opener and id_out(opener), then=then, return_exceptions=bool(return_exceptions),
        max_concurrency=window,
        due=due,
    )  # fmt: skip


def read_task(row: Row, id_out: IdOut) -> Task:
    """A row of ``TASK_STATE``."""
    (
        run_id, task_id, path, scope, node, status, attempt, tries, held_for, due, inputs_from, leaf_of, wait,
        signal, handler, deaths, created_at, sent_at, first_started_at, started_at, finished_at, worker, slot,
        leased_until, depth, unfolded,
    ) = row  # fmt: skip
    return Task(
        run_id=run_id, id=id_out(task_id), path=path, scope=scope, node=node, status=TASK_STATUS[status],
        attempt=attempt, tries=tries, held_for=held_for, due=due, inputs_from=inputs_from and id_out(inputs_from),
        leaf_of=leaf_of, wait=wait, signal=_maybe_text(signal), handler=bool(handler), deaths=deaths,
        created_at=created_at, sent_at=sent_at, first_started_at=first_started_at,
        started_at=started_at, finished_at=finished_at, worker=_maybe_text(worker),
        slot=_maybe_text(slot), leased_until=leased_until, depth=depth, unfolded=unfolded,
    )  # fmt: skip


def read_sendable(row: Row, id_out: IdOut) -> Sendable:
    """A row of ``SENDABLE``."""
    run_id, task_id, node, attempt, tries, inputs, first_started_at, traceparent, unsent_since = row
    return Sendable(
        run_id, id_out(task_id), node, attempt, tries, inputs or b"{}", first_started_at, _maybe_text(traceparent),
        unsent_since,
    )  # fmt: skip


def dead_row(letter: DeadLetter) -> Row:
    """A new dead letter: ``DEAD`` without the id, which is the database's to give."""
    return (
        utf8(letter.reason), utf8(letter.detail), utf8(letter.queue), letter.body, letter.properties, letter.at,
        _maybe_utf8(letter.run_id),
    )  # fmt: skip


def read_dead(row: Row) -> DeadLetter:
    """A row of ``DEAD``."""
    letter_id, reason, detail, queue, body, properties, at, run_id = row
    return DeadLetter(
        reason.decode(), detail.decode(), queue.decode(), body, properties, at, _maybe_text(run_id), letter_id
    )


def read_dead_row(row: Row) -> DeadLetterRow:
    """A row of ``DEAD`` with the body's length in its place."""
    letter_id, reason, detail, queue, size, properties, at, run_id = row
    return DeadLetterRow(
        letter_id, reason.decode(), detail.decode(), queue.decode(), size, properties, at, _maybe_text(run_id)
    )


def read_ended(row: Row) -> EndedRun:
    """A row of ``ENDED_RUN``."""
    run_id, node, status, outputs, message, error, ended_at, inputs, parent = row
    return EndedRun(run_id, node, status, outputs, message.decode(), error, ended_at, inputs, parent)
