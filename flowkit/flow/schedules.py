"""When a schedule begins a run, and when it lets a tick pass.

A tick is a moment that its cron line names. However many are due, at most one run begins: that of the last one. What
is over a minute late was missed, as nobody was at work; ``missed`` says what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from flowkit.flow.events import Started
from flowkit.wire import codec
from flowkit.wire import messages as wire

TOLERANCE = 60.0  # seconds that a tick may be late: a coordinator that restarts, or a queue of many schedules
PRECISION = 30.0  # seconds: under a minute, in which no line comes twice
LOOK_AGAIN = 300.0  # seconds until a schedule that cannot be computed is looked at again
SUFFIX = "-%Y%m%dT%H%M%SZ"
_LENGTH = len("-20261124T030000Z")

After = Callable[[float], float | None]  # the first tick behind a time, in Unix seconds


class Missed(StrEnum):
    """What becomes of ticks for which nobody was at work."""

    SKIP = "skip"
    ONCE = "once"  # one run for all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of the table. Times are Unix seconds, payloads JSON."""

    name: str
    cron: str
    timezone: str
    node: str
    inputs: bytes = b"{}"
    tags: bytes = b"{}"
    missed: Missed = Missed.SKIP
    overlap: bool = False  # begin a run although the last one has not ended
    created_at: float
    next_at: float | None = None  # None: it never comes again
    look_at: float | None = None  # when a coordinator sees to it: at next_at, or later when that failed
    last_run: str | None = None
    skipped_at: float | None = None  # the last tick that began no run since the last one that did
    skipped: str | None = None  # why

    @property
    def asked(self) -> tuple[object, ...]:
        """What somebody asked for, whatever has become of it."""
        return (self.cron, self.timezone, self.node, codec.loads(self.inputs), codec.loads(self.tags), self.missed,
                self.overlap)  # fmt: skip


def run_id(name: str, planned: float) -> str:
    """The id of the run of a tick, such as ``nightly-20261124T030000Z``: begun once, whoever begins it."""
    return name + datetime.fromtimestamp(planned, UTC).strftime(SUFFIX)


def name_of(run: str) -> str:
    """The name of the schedule that began this run."""
    return run[:-_LENGTH]


def comes_next(schedule: Schedule, now: float, after: After) -> Schedule:
    """The same, waiting for its first tick behind ``now``."""
    following = after(now)
    return replace(schedule, next_at=following, look_at=following)


def tick(schedule: Schedule, now: float, after: After, *, busy: bool) -> tuple[Schedule, Started | None]:
    """What a schedule that is due does.

    Args:
        schedule: with a ``next_at`` that has come.
        now: Unix seconds.
        after: of its cron line.
        busy: its last run has not ended.

    Returns:
        what becomes of its row, and the run that begins, if any.
    """
    assert schedule.next_at is not None, "a schedule that never comes again is not due"
    moved = comes_next(schedule, now, after)
    planned = _last_due(schedule.next_at, now, after, all_of_them=schedule.missed is Missed.ONCE)
    if planned is None:
        return replace(moved, skipped_at=schedule.next_at, skipped="no coordinator was at work then"), None
    if busy and not schedule.overlap:
        return replace(moved, skipped_at=planned, skipped=f"run {schedule.last_run} had not ended"), None
    begun = run_id(schedule.name, planned)
    start = wire.Start.model_construct(  # checked when it was added, perhaps before its tags had bounds
        node=schedule.node, inputs=codec.loads(schedule.inputs), run_id=begun, tags=codec.loads(schedule.tags)
    )
    return (
        replace(moved, last_run=begun, skipped_at=None, skipped=None),
        Started(begun, start, origin="schedule"),
    )


def failed(schedule: Schedule, now: float, why: str) -> Schedule:
    """The same when its cron line cannot be computed here: its tick stays due, for whoever can."""
    return replace(schedule, look_at=now + LOOK_AGAIN, skipped_at=schedule.next_at, skipped=why)


def _last_due(first: float, now: float, after: After, *, all_of_them: bool) -> float | None:
    """The last tick that is due and counts, found by halving: a month of minutes takes twenty steps.

    Args:
        first: the first tick that is due.
        now: Unix seconds.
        after: of the cron line.
        all_of_them: those count too that are too late.
    """
    too_late = float("-inf") if all_of_them else now - TOLERANCE
    low, high = max(first - 1, too_late), now
    found = after(low)
    if found is None or found > now:
        # None that is new enough; or the zone's clocks are changed on another day than was known when ``first`` was
        # written down, which was promised.
        return first if first > too_late else None
    while high - low > PRECISION:
        middle = (low + high) / 2
        later = after(middle)
        if later is None or later > now:
            high = middle
        else:
            low, found = middle, later
    return found
