"""When cron lines come due, also where clocks are changed; and lines that cannot be."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowkit.errors import InvalidSchedule
from flowkit.flow.cron import NICKNAMES, Cron

BERLIN = ZoneInfo("Europe/Berlin")


def ticks(line: str, zone: str, begin: str, count: int) -> list[str]:
    """The next ticks behind a time in that zone, with what the clocks there are ahead of UTC."""
    cron, now = Cron(line, ZoneInfo(zone)), datetime.fromisoformat(begin).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = []
    for _ in range(count):
        now = cron.after(now)
        found.append(datetime.fromtimestamp(now, ZoneInfo(zone)).strftime("%m-%d %H:%M %z")[:-2])
    return found


@pytest.mark.parametrize(
    ("line", "begin", "comes"),
    [
        ("30 2 * * 1-5", "2026-11-27 02:30", ["11-30 02:30 +01", "12-01 02:30 +01"]),
        ("*/20 9-10 * * *", "2026-11-24 10:10", ["11-24 10:20 +01", "11-24 10:40 +01", "11-25 09:00 +01"]),
        ("0 0 29 2 *", "2026-11-24 00:00", ["02-29 00:00 +01"]),
        ("0 12 L * *", "2027-02-01 00:00", ["02-28 12:00 +01", "03-31 12:00 +02"]),
        ("0 9 * * MON#1", "2026-11-24 00:00", ["12-07 09:00 +01"]),
        ("@daily", "2026-11-24 00:00", ["11-25 00:00 +01"]),
        # The hour from 2 to 3 does not exist on 29 March 2026: a fixed time comes right after it, once.
        ("30 2 * * *", "2026-03-28 12:00", ["03-29 03:00 +02", "03-30 02:30 +02"]),
        ("0,30 2 * * *", "2026-03-28 12:00", ["03-29 03:00 +02", "03-30 02:00 +02"]),
        ("30 2,3 * * *", "2026-03-28 12:00", ["03-29 03:00 +02", "03-29 03:30 +02", "03-30 02:30 +02"]),
        ("*/30 * * * *", "2026-03-29 01:20", ["03-29 01:30 +01", "03-29 03:00 +02", "03-29 03:30 +02"]),
        ("*/30 2 * * *", "2026-03-28 12:00", ["03-30 02:00 +02", "03-30 02:30 +02"]),
        # It comes twice on 25 October: a fixed time comes in the first, what is in steps goes on in steps.
        ("30 2 * * *", "2026-10-24 12:00", ["10-25 02:30 +02", "10-26 02:30 +01"]),
        ("0 */2 * * *", "2026-10-25 00:20", ["10-25 02:00 +02", "10-25 02:00 +01", "10-25 04:00 +01"]),
        ("45 * * * *", "2026-10-25 01:50", ["10-25 02:45 +02", "10-25 02:45 +01", "10-25 03:45 +01"]),
    ],
)
def test_when_they_come_in_berlin(line: str, begin: str, comes: list[str]) -> None:
    assert ticks(line, "Europe/Berlin", begin, len(comes)) == comes


def test_seen_from_the_second_of_two_equal_hours_a_fixed_time_has_passed() -> None:
    second = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1).timestamp()
    found = Cron("30 2 * * *", BERLIN).after(second)
    assert datetime.fromtimestamp(found, BERLIN).isoformat() == "2026-10-26T02:30:00+01:00"


def test_where_midnight_does_not_exist_the_day_begins_later() -> None:
    assert ticks("0 0 * * *", "Africa/Cairo", "2026-04-23 12:00", 2) == ["04-24 01:00 +03", "04-25 00:00 +03"]
    assert ticks("*/30 * 24 4 *", "Africa/Cairo", "2026-04-23 12:00", 2) == ["04-24 01:00 +03", "04-24 01:30 +03"]


LINES = (
    "30 2 * * *",
    "0,30 2 * * *",
    "*/30 * * * *",
    "15 */2 * * *",
    "*/7 1-3 * * *",
    "0 0 * * *",
    "45 1 * * 0",
    "* * 25 10 *",
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu")


@given(
    line=st.sampled_from(LINES),
    zone=st.sampled_from(ZONES),
    begin=st.integers(
        int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
    ),
    part=st.floats(0, 0.999),
)
@example("30 2 * * *", "Europe/Berlin", int(datetime(2026, 10, 25, 0, 15, tzinfo=UTC).timestamp()), 0.5)
@example("*/30 * * * *", "Australia/Lord_Howe", int(datetime(2026, 4, 4, 14, 45, tzinfo=UTC).timestamp()), 0.5)
@example("0 0 * * *", "Africa/Cairo", int(datetime(2026, 4, 23, 21, 59, tzinfo=UTC).timestamp()), 0.5)
def test_the_next_tick_is_the_same_from_anywhere_before_it(line: str, zone: str, begin: int, part: float) -> None:
    """So that it does not matter when a coordinator looks."""
    cron = Cron(line, ZoneInfo(zone))
    tick = cron.after(begin)
    assert tick > begin
    between = begin + part * (tick - begin)
    assert cron.after(between) == tick
    assert cron.after(tick) >= tick + 60


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0 30 2 *", "its day-of-month cannot be"),
        ("0 0 31 4,6,9,11 *", "its day-of-month cannot be"),
        ("60 * * * *", "its minute cannot be"),
        ("* 24 * * *", "its hour cannot be"),
        ("*/0 * * * *", "its minute cannot be"),
        ("5-1 * * * *", "its minute cannot be"),
        ("* * * FOO *", "its month cannot be"),
        ("* * * * MON#6", "its day-of-week cannot be"),
        ("* * * * 1#2#3", "its day-of-week cannot be"),
        ("1/1/1 * * * *", "its minute cannot be"),
        ("* * * *", "expected five fields"),
        ("0 * * * * *", "expected five fields"),
        ("@reboot", "expected five fields"),
        ("", "expected five fields"),
        ("\x00 * * * *", "expected five fields"),
        ("* *\n* * *", "expected five fields"),
        ("\u0661 * * * *", "expected five fields"),
        ("\udcff * * * *", "expected five fields"),
        ("1," * 150 + "1 * * * *", "309 characters are more than 200"),
        ("9" * 150 + " * * * *", "its minute cannot be"),
    ],
)
def test_lines_that_cannot_be(line: str, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says) as caught:
        Cron(line, UTC)
    assert "cron line" in str(caught.value)


def test_a_line_that_never_comes_again_says_so_without_a_long_search() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    begin = time.process_time()
    assert Cron("0 0 LW * */7", UTC).after(now) is None  # the last weekday of a month is no Sunday
    assert Cron("0 0 29 2 *", UTC).after(datetime(9997, 1, 1, tzinfo=UTC).timestamp()) is None
    assert time.process_time() - begin < 2


def test_nicknames_are_lines() -> None:
    for nickname in NICKNAMES:
        assert Cron(nickname, UTC).after(0) is not None


def test_in_words() -> None:
    assert Cron("30 2 * * 1-5", UTC).words() == "At 02:30 on Monday through Friday"
    assert Cron("@daily", UTC).words() == "At 00:00 every day"


def test_many_missed_ticks_cost_no_more_than_a_few() -> None:
    """What ``schedules`` relies on: one tick is found without those before it."""
    cron = Cron("* * * * *", UTC)
    far = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=300, seconds=30)
    assert cron.after(far.timestamp()) == far.timestamp() + 30
