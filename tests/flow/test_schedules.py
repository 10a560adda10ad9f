"""What a schedule that is due does: begin one run, or let the tick pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.flow.schedules import LOOK_AGAIN, Missed, Schedule, comes_next, failed, name_of, run_id, tick
from flowkit.wire import names

HOUR = 3600.0
DUE = 1_796_094_000.0  # 2026-12-01 03:00:00 UTC
NIGHTLY = Schedule(
    name="nightly", cron="0 * * * *", timezone="UTC", node="report", inputs=b'{"a":1}', tags=b'{"k":"v"}',
    created_at=0, next_at=DUE, look_at=DUE, last_run="nightly-before",
)  # fmt: skip


def hourly(time: float) -> float:
    return (time // HOUR + 1) * HOUR


def every_minute(time: float) -> float:
    return (time // 60 + 1) * 60


def test_a_run_begins_with_an_id_that_follows_from_name_and_time() -> None:
    moved, started = tick(NIGHTLY, DUE + 0.3, hourly, busy=False)
    assert started is not None
    assert (started.run_id, started.origin) == ("nightly-20261201T030000Z", "schedule")
    assert (started.start.run_id, started.start.node) == (started.run_id, "report")
    assert (started.start.inputs, started.start.tags) == ({"a": 1}, {"k": "v"})
    assert moved == replace(NIGHTLY, next_at=DUE + HOUR, look_at=DUE + HOUR, last_run=started.run_id)


def test_the_longest_name_makes_a_valid_run_id_that_tells_the_name() -> None:
    name = "n" * 63
    assert names.is_run(run_id(name, DUE))
    assert name_of(run_id(name, DUE)) == name


@pytest.mark.parametrize(
    ("missed", "after", "late", "begins"),
    [
        (Missed.SKIP, hourly, 0, "03:00"),
        (Missed.SKIP, hourly, 59, "03:00"),  # a coordinator that is restarted
        (Missed.SKIP, hourly, 60, None),
        (Missed.SKIP, hourly, 3599, None),
        (Missed.SKIP, hourly, 3601, "04:00"),  # one was missed, the next has just come
        (Missed.SKIP, hourly, 30 * 86_400 + 120, None),
        (Missed.SKIP, every_minute, 61, "03:01"),
        (Missed.SKIP, every_minute, 600, "03:10"),
        (Missed.ONCE, hourly, 0, "03:00"),
        (Missed.ONCE, hourly, 3599, "03:00"),
        (Missed.ONCE, hourly, 2 * 3600 + 1800, "05:00"),  # one run for three, the time of the last one
        (Missed.ONCE, every_minute, 30 * 86_400 + 30, "03:00"),
    ],
)
def test_missed_ticks(missed: Missed, after, late: float, begins: str | None) -> None:
    moved, started = tick(replace(NIGHTLY, missed=missed), DUE + late, after, busy=False)
    assert (started and f"{started.run_id[17:19]}:{started.run_id[19:21]}") == begins
    assert moved.next_at == moved.look_at == after(DUE + late)
    if begins is None:
        assert (moved.skipped_at, moved.skipped) == (DUE, "no coordinator was at work then")
        assert moved.last_run == "nightly-before"
    else:
        assert (moved.skipped_at, moved.skipped) == (None, None)


@given(late=st.floats(0, 40 * 86_400), missed=st.sampled_from(Missed), first=st.integers(0, 59))
def test_the_last_tick_is_the_one_that_counting_finds(late: float, missed: Missed, first: int) -> None:
    """By halving or one by one: the same."""

    def after(time: float) -> float:  # at 7, 8 and 30 minutes of each hour
        hour = time // HOUR * HOUR
        return next(hour + 60 * m for m in (7, 8, 30, 67) if hour + 60 * m > time)

    next_at = after(DUE + 60 * first)
    now, last, following = next_at + late, next_at, after(next_at)
    while following <= now:
        last, following = following, after(following)
    schedule = replace(NIGHTLY, missed=missed, next_at=next_at)
    moved, started = tick(schedule, now, after, busy=False)
    fires = missed is Missed.ONCE or now - last < 60
    assert (started is not None) == fires
    assert not fires or started.run_id == run_id("nightly", last)
    assert moved.next_at == following


def test_while_the_last_run_has_not_ended_ticks_are_skipped_unless_asked_for() -> None:
    moved, started = tick(NIGHTLY, DUE + 1, hourly, busy=True)
    assert started is None
    assert (moved.skipped_at, moved.skipped) == (DUE, "run nightly-before had not ended")
    assert (moved.next_at, moved.last_run) == (DUE + HOUR, "nightly-before")
    _, started = tick(replace(NIGHTLY, overlap=True), DUE + 1, hourly, busy=True)
    assert started is not None
    _, started = tick(replace(NIGHTLY, missed=Missed.ONCE), DUE + 2 * HOUR, hourly, busy=True)
    assert started is None


def test_what_was_skipped_is_forgotten_with_the_next_run() -> None:
    moved, _ = tick(replace(NIGHTLY, skipped_at=1.0, skipped="why"), DUE + 1, hourly, busy=False)
    assert (moved.skipped_at, moved.skipped) == (None, None)


def test_one_that_never_comes_again_begins_its_last_run() -> None:
    moved, started = tick(NIGHTLY, DUE + 1, lambda time: DUE if time < DUE else None, busy=False)
    assert started is not None
    assert (moved.next_at, moved.look_at) == (None, None)


def test_a_time_that_was_promised_holds_though_the_rules_of_its_zone_have_changed() -> None:
    """A government decides, the time zone database is upgraded, and 03:00 is another moment."""
    moved, started = tick(NIGHTLY, DUE + 1, lambda time: hourly(time - 600) + 600, busy=False)
    assert started is not None
    assert started.run_id == "nightly-20261201T030000Z"
    assert moved.next_at == DUE + 600


def test_one_that_cannot_be_computed_stays_due_and_is_looked_at_again() -> None:
    moved = failed(NIGHTLY, DUE + 5, "no such zone")
    assert (moved.next_at, moved.look_at) == (DUE, DUE + 5 + LOOK_AGAIN)
    assert (moved.skipped_at, moved.skipped, moved.last_run) == (DUE, "no such zone", "nightly-before")


def test_what_was_asked_for_is_told_from_what_became_of_it() -> None:
    assert NIGHTLY.asked == comes_next(replace(NIGHTLY, inputs=b'{ "a": 1 }'), DUE + 9 * HOUR, hourly).asked
    for other in ({"cron": "1 * * * *"}, {"node": "x"}, {"inputs": b"{}"}, {"tags": b"{}"}, {"overlap": True},
                  {"missed": Missed.ONCE}, {"timezone": "Europe/Berlin"}):  # fmt: skip
        assert NIGHTLY.asked != replace(NIGHTLY, **other).asked
