"""Carries out effects: what concerns many rows, in a few statements each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import assert_never, cast

from flowkit.flow import paths
from flowkit.flow.changes import (
    EFFECTS,
    CancelBelow,
    Change,
    Collect,
    CopyRun,
    Effect,
    FailOutstanding,
    FreeSlot,
    HoldUnsent,
    LiftLeaves,
    Reopen,
    TrimRun,
    Unhold,
)
from flowkit.flow.events import AttemptsCancelled, Cancelled, Collected, Event
from flowkit.flow.state import DELAY, LIMIT, RETRY, WINDOW, Leaf
from flowkit.store import rows
from flowkit.store.cancelled import free_slots, hold_slots
from flowkit.store.copying import copy
from flowkit.store.database import Database, Values
from flowkit.store.reopening import reopen
from flowkit.store.trimming import trim

OF_OTHER_ROWS = frozenset({Collect, FreeSlot})  # they change no row of a task, a scope or a run
ScopeKey = tuple[str, str]

# What may be opened again keeps what it was held for, and until when: a branch its window, a wait its time.
CANCEL_TASKS = (
    "UPDATE tasks SET status = 'cancelled', finished_at = :at, "
    f"held_for = CASE WHEN held_for IN ('{WINDOW}', '{DELAY}', '{RETRY}') THEN held_for END, "
    f"due = CASE WHEN status = 'waiting' OR held_for IN ('{DELAY}', '{RETRY}') THEN due END, "
    "unsent_since = NULL, leased_until = NULL"
)
CANCEL_SCOPES = "UPDATE scopes SET status = 'cancelled', outstanding = 0"


def changed_as_a_set(changes: Iterable[Change]) -> set[str]:
    """Runs with rows that these changes do not name one by one."""
    return {
        cast("Effect", change).run_id
        for change in changes
        if type(change) in EFFECTS and type(change) not in OF_OTHER_ROWS
    }


def carry_out(database: Database, effects: Sequence[Effect]) -> list[Event]:
    """Carry out effects; returns their outcomes in the order of the effects."""
    if not effects:
        return []
    collected = _collect(database, {(e.run_id, e.scope) for e in effects if isinstance(e, Collect)})
    events: list[Event] = []
    for kind, some in groupby(effects, type):
        if kind is LiftLeaves:  # many branches of a window end in one batch
            lifted = [(e.run_id, e.path, e.parent) for e in some if isinstance(e, LiftLeaves)]
            database.update("tasks", ("run_id", "leaf_of"), ("leaf_of",), lifted)
            continue
        if kind is FreeSlot:
            free_slots(database, [e for e in some if isinstance(e, FreeSlot)])
            continue
        for effect in some:
            events += _carry_out(database, effect, collected)
    return events


def _carry_out(database: Database, effect: Effect, collected: Mapping[ScopeKey, Collected]) -> Iterable[Event]:
    match effect:
        case Collect(run_id, scope):
            return [collected[run_id, scope]]
        case CancelBelow():
            return _cancel(database, effect)
        case FailOutstanding():
            return _fail_outstanding(database, effect)
        case Reopen(run_id, at):
            drained = reopen(database, run_id, at)
            return _collect(database, [(run_id, path) for path in drained]).values()
        case Unhold():
            _unhold(database, effect)
        case HoldUnsent():
            _hold_unsent(database, effect)
        case CopyRun():
            copy(database, effect)
        case TrimRun():
            trim(database, effect)
        case FreeSlot() | LiftLeaves():
            raise AssertionError(f"{effect} is carried out with others of its kind")
        case _:
            assert_never(effect)
    return []


def _collect(database: Database, scopes: Iterable[ScopeKey]) -> dict[ScopeKey, Collected]:
    """All scopes in two statements: many runs end in one batch."""
    wanted = list(scopes)
    if not wanted:
        return {}
    leaves: dict[ScopeKey, list[Leaf]] = defaultdict(list)
    select = "SELECT t.run_id, t.leaf_of, t.path, t.id, t.outputs, t.error, t.message FROM tasks AS t"
    for run_id, scope, path, task_id, outputs, error, message in database.lookup(
        select, "tasks", ("run_id", "leaf_of"), wanted
    ):
        text = message.decode() if message else ""
        leaves[run_id, scope].append(Leaf(path, database.id_out(task_id), outputs, error, text))
    select = (
        "SELECT t.run_id, t.path, opener.outputs, opener.depth, opener.created_at FROM scopes AS t "
        "JOIN tasks AS opener ON opener.run_id = t.run_id AND opener.id = t.opener"
    )
    opened = {(run_id, path): opener for run_id, path, *opener in database.lookup(
        select, "scopes", ("run_id", "path"), wanted
    )}  # fmt: skip
    collected = {}
    for key in wanted:
        outputs, depth, opened_at = opened.get(key, (None, None, None))
        collected[key] = Collected(*key, outputs or b"{}", tuple(leaves[key]), depth, opened_at)
    return collected


def _cancel(database: Database, effect: CancelBelow) -> list[Event]:
    """Cancel in two statements, and say how many stood directly in ``effect.scope``."""
    values: Values = {"run_id": effect.run_id, "at": effect.at}
    where = "run_id = :run_id"
    if effect.path:
        below, bounds = _below(effect.path)
        where += f" AND (path = :path OR {below})"
        values = {**values, **bounds, "path": effect.path}
    tasks = f"WHERE {where} AND {rows.OUTSTANDING}"
    scopes = f"WHERE {where} AND status = 'open'"
    events: list[Event] = []
    if effect.scope is not None:
        counted = (
            f"SELECT (SELECT count(*) FROM tasks {tasks} AND scope = :scope) + "
            f"(SELECT count(*) FROM scopes {scopes} AND parent = :scope)"
        )
        count = database.select(counted, {**values, "scope": effect.scope})[0][0]
        events.append(Cancelled(effect.run_id, effect.scope, count))
    events += _held_slots(database, where, values, every=effect.path != "", grace=effect.grace)
    database.execute(f"{CANCEL_TASKS} {tasks}", values)
    database.execute(f"{CANCEL_SCOPES} {scopes}", values)
    return events


def _fail_outstanding(database: Database, effect: FailOutstanding) -> list[Event]:
    """Fail what stands directly in the scope, cancel what is below that.

    All that the scope's counter says is gone then, so that it drains even if the counter was wrong.
    """
    key: Values = {"run_id": effect.run_id, "scope": effect.scope}
    counted = "SELECT outstanding FROM scopes WHERE run_id = :run_id AND path = :scope AND status = 'open'"
    found = database.select(counted, key)
    if not found:
        return []
    failed: Values = {**key, "error": effect.error}
    below, bounds = _below(effect.scope)
    where: Values = {"run_id": effect.run_id, **bounds}
    events: list[Event] = [Cancelled(effect.run_id, effect.scope, found[0][0])]
    all_of_it, values = f"run_id = :run_id AND (scope = :scope OR {below})", {**key, **bounds, "at": effect.at}
    events += _held_slots(database, all_of_it, values, every=True)
    database.execute(
        "UPDATE tasks SET status = 'failed', error = :error, leaf_of = :scope, "
        "finished_at = coalesce(finished_at, :at), held_for = NULL, due = NULL, unsent_since = NULL, "
        "leased_until = NULL WHERE run_id = :run_id AND id IN "
        "(SELECT opener FROM scopes WHERE run_id = :run_id AND parent = :scope AND status = 'open')",
        {**failed, "at": effect.at},
    )
    database.execute(
        "UPDATE tasks SET status = 'failed', error = :error, leaf_of = :scope, finished_at = :at, held_for = NULL, "
        "due = NULL, unsent_since = NULL, leased_until = NULL "
        f"WHERE run_id = :run_id AND scope = :scope AND {rows.OUTSTANDING}",
        {**failed, "at": effect.at},
    )
    tasks = f"{CANCEL_TASKS} WHERE run_id = :run_id AND {below} AND {rows.OUTSTANDING}"
    database.execute(tasks, {**where, "at": effect.at})
    database.execute(f"{CANCEL_SCOPES} WHERE run_id = :run_id AND {below} AND status = 'open'", where)
    return events


def _held_slots(
    database: Database, where: str, values: Values, *, every: bool, grace: float = 0
) -> Iterator[AttemptsCancelled]:
    attempts = hold_slots(database, where, values, every=every)
    if attempts:
        run_id = attempts[0][0]
        yield AttemptsCancelled(run_id, tuple((task_id, attempt) for _, task_id, attempt in attempts), grace)


def _below(path: str) -> tuple[str, Values]:
    """Below p is what begins with "p+" (folded) or "p.": from "p+" up to "p/", the character after the dot."""
    return "path >= :first AND path < :end", {"first": path + paths.FOLDED, "end": path + "/"}


def _unhold(database: Database, effect: Unhold) -> None:
    database.execute(
        "UPDATE tasks SET status = CASE WHEN slot IS NULL THEN 'queued' ELSE 'held' END, "
        f"held_for = CASE WHEN slot IS NOT NULL THEN '{LIMIT}' END, due = NULL, sent_at = NULL, "
        f"unsent_since = CASE WHEN slot IS NULL THEN {rows.AT_ONCE} END "
        f"WHERE run_id = :run_id AND {rows.OUTSTANDING} AND status = 'held' AND held_for = :reason",
        {"run_id": effect.run_id, "reason": effect.reason},
    )


def _hold_unsent(database: Database, effect: HoldUnsent) -> None:
    # A queued task of a limited node may be on its way to a worker, confirmed by the broker and not marked yet. It
    # keeps its place in its slot, and the relay sends nothing of a paused run.
    database.execute(
        "UPDATE tasks SET status = 'held', held_for = :reason, due = NULL, unsent_since = NULL "
        f"WHERE run_id = :run_id AND {rows.OUTSTANDING} "
        f"AND (status = 'queued' AND sent_at IS NULL AND slot IS NULL OR held_for = '{LIMIT}')",
        {"run_id": effect.run_id, "reason": effect.reason},
    )
