"""Leases: when one begins, is renewed, is over; and what workers have to hear again."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from flowkit.flow.changes import MoveTask, Tell
from flowkit.flow.events import LeaseExpired
from flowkit.flow.leases import Known, lease, telling
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.flow.terms import Terms
from flowkit.wire import codec
from flowkit.wire.messages import Control, Running
from tests.flow.rows import Rows

NOW = 10_000.0
TERMS = Terms(after=300, silence=90)
ID = UUID(int=7)
SENT = Known(status=TaskStatus.QUEUED, attempt=2, created_at=1_000.0, run=RunStatus.RUNNING, sent_at=9_000.0)
LEASED = replace(SENT, status=TaskStatus.RUNNING, leased_until=NOW + 70)


def running(since: float | None = 9_500.0, attempt: int = 2, run_id: str | None = "r") -> Running:
    return Running(ID, attempt, since, run_id)


@pytest.mark.parametrize(
    ("why", "entry", "known", "granted"),
    [
        ("it runs long enough", running(NOW - 300), SENT, True),
        ("not yet", running(NOW - 299), SENT, False),
        ("not begun", running(None), SENT, False),
        ("nobody said of which run it is", running(run_id=None), SENT, False),
        ("an older attempt", running(attempt=1), SENT, False),
        ("the store was set back, and knows of no such attempt", running(attempt=3), SENT, False),
        ("answered", running(), replace(SENT, status=TaskStatus.SUCCEEDED), False),
        ("held meanwhile", running(), replace(SENT, status=TaskStatus.HELD), False),
        ("cancelled with its run", running(), replace(SENT, status=TaskStatus.CANCELLED), False),
        ("what runs in a paused run comes to its end", running(), replace(SENT, run=RunStatus.PAUSED), True),
        ("its confirm is not written yet", running(), replace(SENT, sent_at=None), True),
        ("the worker's clock is slow: it was sent a moment ago", running(5.0), replace(SENT, sent_at=NOW - 1), False),
        ("the worker's clock is fast, and it was sent long ago", running(NOW + 9_999), SENT, True),
        ("the worker's clock is fast", running(NOW + 9_999), replace(SENT, sent_at=NOW - 299), False),
        ("the store's clock was set back: nobody knows how long it runs", running(NOW + 3_590),
         replace(SENT, sent_at=NOW + 3_600), True),
        ("leased already, and not for long", running(), LEASED, False),
        ("two thirds of it are left", running(), replace(LEASED, leased_until=NOW + 60), False),
        ("time to renew it", running(), replace(LEASED, leased_until=NOW + 59), True),
        ("over, and nobody has noticed", running(), replace(LEASED, leased_until=NOW - 999), True),
        ("a second delivery, which has just begun, renews it too", running(NOW - 1), replace(LEASED, leased_until=NOW),
         True),
    ],
)  # fmt: skip
def test_when_a_lease_is_written(why, entry, known, granted):
    found = lease(entry, known, "w1", NOW, TERMS)
    assert (found is not None) is granted, why
    if found is not None:
        assert (found.run_id, found.task_id, found.attempt, found.worker) == ("r", ID, 2, "w1")
        assert (found.until, found.started_at) == (NOW + 90, entry.since)
        assert found.sent_at == (known.sent_at or NOW)


def test_a_lease_keeps_when_the_task_began_first():
    first = lease(running(), SENT, "w1", NOW, TERMS)
    again = lease(running(), replace(SENT, first_started_at=5_000.0), "w1", NOW, TERMS)
    assert (first.first_started_at, again.first_started_at) == (9_500.0, 5_000.0)


CANCEL_TASK = {"kind": "cancel", "run_id": "r", "task_id": ID, "worker": "w1"}
CANCEL_RUN = {"kind": "cancel", "run_id": "r", "worker": "w1"}


@pytest.mark.parametrize(
    ("why", "entry", "known", "told"),
    [
        ("all is well", running(), SENT, None),
        ("all is well, leased", running(), LEASED, None),
        ("held because it was not marked as sent when the run was paused", running(),
         replace(SENT, run=RunStatus.PAUSED, status=TaskStatus.HELD), None),
        ("cancelled", running(), replace(SENT, run=RunStatus.CANCELLED, status=TaskStatus.CANCELLED), CANCEL_RUN),
        ("failed", running(None), replace(SENT, run=RunStatus.FAILED, status=TaskStatus.CANCELLED), CANCEL_RUN),
        ("its Gather failed", running(), replace(SENT, status=TaskStatus.CANCELLED), {**CANCEL_TASK, "attempt": 2}),
        ("answered by somebody", running(), replace(SENT, status=TaskStatus.SUCCEEDED), {**CANCEL_TASK, "attempt": 2}),
        ("another attempt is out", running(attempt=1), SENT, {**CANCEL_TASK, "attempt": 1}),
        ("not begun, and the run is paused", running(None), replace(SENT, run=RunStatus.PAUSED),
         {"kind": "paused", "run_id": "r", "worker": "w1"}),
        ("begun, and the run is paused", running(), replace(SENT, run=RunStatus.PAUSED), None),
        ("cancelled with a grace", running(),
         replace(SENT, run=RunStatus.CANCELLED, status=TaskStatus.CANCELLED, grace_until=NOW + 12.5),
         {**CANCEL_RUN, "grace": 12.5}),
        ("the grace is over", running(),
         replace(SENT, run=RunStatus.CANCELLED, status=TaskStatus.CANCELLED, grace_until=NOW), CANCEL_RUN),
    ],
)  # fmt: skip
def test_what_a_worker_hears_again(why, entry, known, told):
    assert telling(entry, known, "w1", NOW) == (None if told is None else Control(**told)), why


# Silence


def leased(rows: Rows, path: str = "0", **more) -> None:
    """As the store has it once a lease was granted."""
    task = rows.at(path)
    fields = {"status": TaskStatus.RUNNING, "leased_until": rows.now + 90, "worker": "w1", "started_at": rows.now}
    rows.tasks["r", task.id] = task._replace(**(fields | more))


def silence(rows: Rows, seconds: float = 90, path: str = "0") -> list:
    rows.now += seconds
    return rows.feed(LeaseExpired("r", rows.at(path).id))


def test_silence_is_the_death_of_a_process_and_the_next_attempt_follows():
    rows = Rows()
    rows.start()
    leased(rows, first_started_at=999.0)
    changes = silence(rows)
    task = rows.at("0")
    assert (task.status, task.attempt, task.tries, task.deaths) == (TaskStatus.QUEUED, 2, 1, 1)
    assert (task.leased_until, task.sent_at, task.first_started_at) == (None, None, 999.0)
    assert codec.loads(task.error)["message"] == "process w1 died while it ran it", "for whoever looks meanwhile"
    cancel = Tell(Control(kind="cancel", run_id="r", task_id=task.id, attempt=1))
    assert cancel in changes, "whoever has it all the same"
    rows.report("0", outputs={"late": 1}, attempt=1)
    assert [one.reason for one in rows.superseded] == ["attempt 1 is not the current one (2)"]
    rows.report("0", outputs={"x": 1}, attempt=2)
    assert rows.outputs() == {"x": 1}


def test_deaths_are_kept_across_attempts_until_there_are_too_many():
    rows = Rows()
    rows.start()
    for attempt in (1, 2):
        leased(rows)
        silence(rows)
        assert (rows.at("0").attempt, rows.at("0").deaths) == (attempt + 1, attempt)
    leased(rows)
    silence(rows)
    run = rows.runs["r"]
    assert run.status is RunStatus.FAILED
    assert "ProcessDied: 3 processes died while they ran it, the last one was w1" in run.message


def test_deaths_by_silence_and_by_beginning_again_are_counted_together():
    rows = Rows()
    rows.start()
    leased(rows)
    silence(rows)
    for number in (1, 2, 3):
        rows.report("0", status="started", attempt=2, worker=f"w{number}", started_at=2_000.0 + number)
    assert "3 processes died" in rows.runs["r"].message


def test_silence_over_a_handled_node_is_handled():
    rows = Rows(limits=Limits(max_deaths=1), on_error={"a": "mend"})
    rows.start(x=1)
    leased(rows)
    silence(rows)
    assert rows.at("0.0").node == "mend"
    assert rows.inputs("0.0")["error"]["message"] == "process w1 died while it ran it (setting max_deaths)"


def test_silence_in_a_paused_run_waits_for_it_to_go_on():
    rows = Rows()
    rows.start()
    leased(rows, sent_at=1.0)
    rows.command("pause")
    silence(rows)
    assert (rows.at("0").status, rows.at("0").held_for) == (TaskStatus.HELD, "paused")
    rows.command("resume")
    assert rows.at("0").status is TaskStatus.QUEUED


def test_the_attempts_of_a_task_are_limited():
    rows = Rows(limits=Limits(max_attempts=1))
    rows.start()
    leased(rows)
    silence(rows)
    assert "max_attempts" in rows.runs["r"].message


@pytest.mark.parametrize("what", ["heard again", "answered", "returned", "cancelled", "unknown run"])
def test_silence_that_was_broken_means_nothing(what):
    rows = Rows()
    rows.start()
    leased(rows)
    if what == "heard again":
        leased(rows, leased_until=rows.now + 500)
    elif what == "answered":
        rows.report("0", ["b"])
    elif what == "returned":
        rows.report("0", status="returned", attempt=1)
    elif what == "cancelled":
        rows.command("cancel")
    before = dict(rows.tasks)
    if what == "unknown run":
        assert rows.feed(LeaseExpired("ghost", ID)) == []
    else:
        assert silence(rows) == []
    assert rows.tasks == before


def test_two_looks_at_one_silence_count_one_death():
    rows = Rows()
    rows.start()
    leased(rows)
    rows.now += 90
    changes = rows.feed(*[LeaseExpired("r", rows.at("0").id)] * 2)
    assert sum(isinstance(change, MoveTask) for change in changes) == 1
    assert rows.at("0").deaths == 1


def test_a_drained_worker_gives_its_leased_task_back_without_a_death():
    rows = Rows()
    rows.start()
    leased(rows)
    rows.report("0", status="returned", attempt=1)
    task = rows.at("0")
    assert (task.status, task.attempt, task.deaths, task.leased_until) == (TaskStatus.QUEUED, 2, 0, None)


# Cancelled with a grace


def test_a_grace_is_for_what_runs_and_the_run_is_over_at_once():
    rows = Rows()
    rows.start()
    rows.report("0", ["b", "c"])
    changes = rows.command("cancel", grace=30)
    assert rows.runs["r"].status is RunStatus.CANCELLED
    assert rows.runs["r"].grace_until == rows.now + 30
    assert {task.status for task in rows.tasks.values()} == {TaskStatus.SUCCEEDED, TaskStatus.CANCELLED}
    assert Tell(Control(kind="cancel", run_id="r", grace=30)) in changes
    rows.report("0.0", outputs={"late": 1})
    assert [one.reason for one in rows.superseded] == ["the run is cancelled"]


@pytest.mark.parametrize("grace", [{}, {"grace": 0}, {"grace": None}])
def test_without_a_grace_what_runs_is_interrupted(grace):
    rows = Rows()
    rows.start()
    changes = rows.command("cancel", **grace)
    assert rows.runs["r"].grace_until is None
    (told,) = [change.control for change in changes if isinstance(change, Tell)]
    assert told.encode() == Control(kind="cancel", run_id="r").encode()
