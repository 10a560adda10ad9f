"""Schedules in plain words: when they come, how their last runs went, and why none begins."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from flowkit.cli.render.output import duration, moment
from flowkit.coordinator import calendars
from flowkit.errors import InvalidSchedule, UsageError
from flowkit.flow.schedules import TOLERANCE, Schedule
from flowkit.store.views import ScheduleRow

HEAD = ("schedule", "when", "node", "next", "last run", "status", "note")
SILENT = 10  # seconds after its claim has ended in which a coordinator that is at work has renewed it
INSTALL = "pip install 'flowkit-mq[cron]'"


def cells(row: ScheduleRow) -> tuple[str, ...]:
    """One line of the table."""
    schedule = row.schedule
    note = f"{at(schedule.skipped_at, schedule)} skipped: {schedule.skipped}" if schedule.skipped else ""
    return (schedule.name, when(schedule), schedule.node, at(schedule.next_at, schedule), schedule.last_run or "",
            _status(row), note)  # fmt: skip


def facts(row: ScheduleRow) -> dict[str, Any]:
    """The same as JSON."""
    schedule = row.schedule
    last = None
    if schedule.last_run is not None:
        last = {
            "id": schedule.last_run,
            "status": row.last_status,
            "started_at": moment(row.last_started_at),
            "ended_at": moment(row.last_ended_at),
        }
    skipped = None if schedule.skipped is None else {"at": moment(schedule.skipped_at), "why": schedule.skipped}
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "node": schedule.node,
        "inputs": json.loads(schedule.inputs),
        "tags": json.loads(schedule.tags),
        "missed": schedule.missed.value,
        "overlap": schedule.overlap,
        "created_at": moment(schedule.created_at),
        "next_at": moment(schedule.next_at),
        "last_run": last,
        "skipped": skipped,
    }


def promise(schedule: Schedule) -> str:
    """When it comes, and when next."""
    if schedule.next_at is None:
        return when(schedule)
    wait = duration(max(0.0, schedule.next_at - time.time()))
    return f"{when(schedule)}; next {at(schedule.next_at, schedule)}, in {wait}"


def when(schedule: Schedule) -> str:
    """Its cron line in words, where that can be had."""
    try:
        words = calendars.cron(schedule.cron, schedule.timezone).words()
    except UsageError:
        words = schedule.cron
    return words if schedule.timezone == "UTC" else f"{words} ({schedule.timezone})"


def at(seconds: float | None, schedule: Schedule) -> str:
    """A time by the clocks that its cron line is about."""
    return (
        "never" if seconds is None else datetime.fromtimestamp(seconds, _zone(schedule)).strftime("%Y-%m-%d %H:%M %Z")
    )


def troubles(found: Sequence[ScheduleRow], coordinated_until: float) -> list[str]:
    """Why no run begins, as far as the store knows."""
    now = time.time()
    said = []
    if coordinated_until < now - SILENT:
        said.append("No coordinator is at work on this store, so no run begins: flowkit coordinator")
    elif late := overdue(found, now):
        said.append(f"{', '.join(late[:5])}: due, and no run begins. Does the coordinator have cronsim ({INSTALL})? "
                    "Its log says what it lacks.")  # fmt: skip
    if not calendars.installed():
        said.append(f"cronsim is not installed here, so cron lines are shown as they are: {INSTALL}")
    return said


def overdue(found: Sequence[ScheduleRow], now: float) -> list[str]:
    """Names of those that are due and were not looked at."""
    return [row.schedule.name for row in found if row.schedule.look_at and row.schedule.look_at < now - TOLERANCE]


def _status(row: ScheduleRow) -> str:
    if row.schedule.last_run is None:
        return ""
    return row.last_status or "pruned"


def _zone(schedule: Schedule) -> tzinfo:
    try:
        return calendars.zone(schedule.timezone)
    except InvalidSchedule:  # this machine knows fewer of them than the one where it was added
        return UTC
