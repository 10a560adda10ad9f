"""The rules of FlowKit: what follows from what happened.

``advance`` looks at the rows of one run and an event, and says what changes. Whoever calls it applies the changes to
the state before the next event, writes them all in one transaction, and folds the events that come back.
"""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.flow import cancelling, commands, leases, overdue, results, scopes, starting, waits
from flowkit.flow.changes import Change
from flowkit.flow.context import Context
from flowkit.flow.events import (
    AttemptsCancelled,
    BranchEnded,
    BranchFailed,
    BranchReleased,
    Cancelled,
    Collected,
    Commanded,
    Drained,
    Event,
    LeaseExpired,
    QueueExpired,
    Reported,
    RunExpired,
    ScopeExpired,
    Signalled,
    Started,
    TaskFailed,
    WaitExpired,
)
from flowkit.flow.state import State


def advance(state: State, event: Event, context: Context) -> list[Change | Event]:
    """What follows from ``event``.

    Args:
        state: the rows that the event's keys name; it is only read.
        event: what happened.
        context: time, secret and limits.

    Returns:
        changes in the order in which they hold; an event among them is to be folded after they were written.
    """
    return list(_advance(state, event, context))


def _advance(state: State, event: Event, context: Context) -> Iterable[Change | Event]:  # noqa: C901, PLR0911, PLR0912 - one a rule
    match event:
        case Reported():
            return results.reported(state, event, context)
        case Started():
            return starting.started(state, event, context)
        case TaskFailed():
            return results.failed(state, event, context)
        case Collected():
            return scopes.collected(state, event, context)
        case Cancelled():
            return scopes.count_down(state.scopes[event.run_id, event.scope], event.count)
        case AttemptsCancelled():
            return cancelling.cancelled(event)
        case BranchEnded():
            return scopes.branch_ended(state, event, context)
        case BranchReleased():
            return scopes.branch_released(state, event, context)
        case BranchFailed():
            return scopes.branch_failed(state, event, context)
        case ScopeExpired():
            return scopes.expired(state, event, context)
        case Drained():
            return scopes.drained(state, event)
        case RunExpired():
            return scopes.run_expired(state, event, context)
        case Commanded():
            return commands.commanded(state, event, context)
        case Signalled():
            return waits.signalled(state, event, context)
        case WaitExpired():
            return waits.expired(state, event, context)
        case LeaseExpired():
            return leases.expired(state, event, context)
        case QueueExpired():
            return overdue.expired(state, event, context)
