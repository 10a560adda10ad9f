"""While tests run, whatever a transaction takes from what is kept is compared with its rows."""

from __future__ import annotations

from flowkit.flow.state import Keys, State
from flowkit.store import transaction
from flowkit.store.database import Database
from flowkit.store.kept import Kept
from flowkit.store.loading import load
from flowkit.store.sqlite import SQLite


def check_always() -> None:
    """From now on, in this process."""
    transaction.load = _checked


def _checked(database: Database, keys: Keys, kept: Kept) -> State:
    state = load(database, keys, kept)
    if not isinstance(database, SQLite):
        return state  # others may mark a task as sent at any time, and nothing is kept from one transaction to the next
    rows = load(database, keys, Kept())
    assert (state.runs, state.tasks, state.scopes) == (rows.runs, rows.tasks, rows.scopes), "what is kept is wrong"
    return state
