"""Rows of coordinators: how far each of them has committed what was delivered to it."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from flowkit.flow.read_progress import ReadProgress
from flowkit.store.database import Database, Row


def record(database: Database, progress: ReadProgress) -> list[ReadProgress]:
    """Write one row, and return all that are there."""
    database.execute(
        "INSERT INTO coordinators (id, name, beat, attached, committed) "
        "VALUES (:id, :name, :beat, :attached, :committed) ON CONFLICT (id) DO UPDATE SET "
        "beat = excluded.beat, attached = excluded.attached, committed = excluded.committed",
        {**progress._asdict(), "id": database.id_in(progress.id)},
    )
    found = database.select("SELECT id, name, beat, attached, committed FROM coordinators ORDER BY id")
    return [ReadProgress(database.id_out(id_), *rest) for id_, *rest in found]


def remove(database: Database, ids: Iterable[UUID]) -> None:
    """Remove rows; those that are missing are no error."""
    rows: list[Row] = [(database.id_in(id_),) for id_ in sorted(ids)]  # one order for everybody: no deadlocks
    if rows:
        database.delete("coordinators", ("id",), rows)
