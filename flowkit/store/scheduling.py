"""Schedules in the tables."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.flow.schedules import Missed, Schedule
from flowkit.store import rows
from flowkit.store.database import Database, Row
from flowkit.store.refused_rows import REFUSED, warn_refused

COLUMNS = (
    "name", "cron", "timezone", "node", "inputs", "tags", "missed", "overlap", "created_at", "next_at", "look_at",
    "last_run", "skipped_at", "skipped",
)  # fmt: skip
MOVED = COLUMNS[-5:]
SCHEDULE = f"SELECT {', '.join(f't.{name}' for name in COLUMNS)}"
WITH_ITS_LAST_RUN = "FROM schedules AS t LEFT JOIN runs AS last ON last.id = t.last_run"


def due(database: Database, now: float, limit: int) -> list[tuple[Schedule, bool]]:
    """Schedules to be looked at, those that nobody else has locked, and whether their last runs are under way."""
    found = database.select(
        f"{SCHEDULE}, last.id IS NOT NULL AND last.ended_at IS NULL {WITH_ITS_LAST_RUN} "
        f"WHERE t.look_at <= :now ORDER BY t.look_at, t.name LIMIT :limit {database.skip_locked}",
        {"now": now, "limit": limit},
    )
    return [(schedule, bool(row[-1])) for row in found if (schedule := readable(row[:-1])) is not None]


def move(database: Database, schedules: Sequence[Schedule]) -> None:
    """Write what became of them."""
    if schedules:
        moved = [(schedule.name, *_row(schedule)[-len(MOVED) :]) for schedule in schedules]
        database.update("schedules", ("name",), MOVED, moved)


def find(database: Database, name: str) -> Schedule | None:
    """One schedule, locked."""
    found = database.lookup(f"{SCHEDULE} FROM schedules AS t", "schedules", ("name",), [(name,)], lock=True)
    return read(found[0]) if found else None


def put(database: Database, schedule: Schedule) -> None:
    """Add it, in the place of one that has its name."""
    database.delete("schedules", ("name",), [(schedule.name,)])
    database.insert("schedules", COLUMNS, [_row(schedule)])


def remove(database: Database, name: str) -> bool:
    """Remove it; False when it was not there."""
    return database.execute("DELETE FROM schedules WHERE name = :name", {"name": name}) == 1


def _row(schedule: Schedule) -> Row:
    """``COLUMNS``."""
    return (
        schedule.name, schedule.cron, schedule.timezone, schedule.node, schedule.inputs, schedule.tags,
        schedule.missed.value, schedule.overlap, schedule.created_at, schedule.next_at, schedule.look_at,
        schedule.last_run, schedule.skipped_at, None if schedule.skipped is None else rows.utf8(schedule.skipped),
    )  # fmt: skip


def readable(row: Row) -> Schedule | None:
    """A row of ``SCHEDULE``; None, with a warning, when this version cannot read it."""
    try:
        return read(row)
    except REFUSED as error:
        warn_refused("schedules", row[0], str(error))
        return None


def read(row: Row) -> Schedule:
    """A row of ``SCHEDULE``."""
    (
        name, cron, timezone, node, inputs, tags, missed, overlap, created_at, next_at, look_at, last_run, skipped_at,
        skipped,
    ) = row  # fmt: skip
    return Schedule(
        name=name, cron=cron, timezone=timezone, node=node, inputs=inputs, tags=tags, missed=Missed(missed),
        overlap=bool(overlap), created_at=created_at, next_at=next_at, look_at=look_at, last_run=last_run,
        skipped_at=skipped_at, skipped=None if skipped is None else skipped.decode(),
    )  # fmt: skip
