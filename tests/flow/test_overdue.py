"""A task that no worker took in time fails, unless something has happened to it since it was found."""

from __future__ import annotations

import pytest

from flowkit.flow.events import QueueExpired
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.flow.rows import Rows


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.start("slow", n=1)
    rows.tasks = {key: task._replace(sent_at=1000.0) for key, task in rows.tasks.items()}
    return rows


def expire(rows: Rows, **fields: object) -> None:
    task = rows.at("0")
    given = {"run_id": "r", "task_id": task.id, "attempt": 1, "sent_at": 1000.0, "timeout": 30.0} | fields
    rows.feed(QueueExpired(**given))


def test_its_run_fails_and_says_why(rows):
    expire(rows)
    assert rows.runs["r"].status is RunStatus.FAILED
    error = codec.loads(rows.runs["r"].error)
    assert (error["type"], error["node"]) == ("QueueTimeout", "slow")
    assert error["message"] == "no worker took it within 30 s (queue_timeout of node 'slow')"
    expire(rows)


def test_who_handles_the_failures_of_its_node_gets_it(rows):
    rows.on_error["slow"] = "complain"
    expire(rows)
    assert rows.outstanding() == ["0.0"]
    assert rows.inputs("0.0")["error"]["type"] == "QueueTimeout"
    assert rows.inputs("0.0")["inputs"] == {"n": 1}


@pytest.mark.parametrize(
    "changed",
    [
        {"status": TaskStatus.RUNNING},
        {"status": TaskStatus.HELD, "held_for": "retry"},
        {"attempt": 2},
        {"sent_at": None},
        {"sent_at": 1001.0},
        {"leased_until": 2000.0},
    ],
)
def test_what_has_gone_on_is_left_alone(rows, changed):
    rows.tasks = {key: task._replace(**changed) for key, task in rows.tasks.items()}
    expire(rows)
    assert rows.runs["r"].status is RunStatus.RUNNING


def test_a_paused_run_is_left_alone(rows):
    rows.command("pause")
    expire(rows)
    assert rows.outstanding() == ["0"]


def test_a_task_that_nobody_knows(rows):
    from uuid import UUID

    expire(rows, task_id=UUID(int=1))
    assert rows.outstanding() == ["0"]


LATE = wire.Error(type="QueueTimeout", message="no worker took it in time: 9.0 s over (queue_timeout of node 'slow')")


@pytest.mark.parametrize(
    ("fields", "waited", "error", "status"),
    [
        ({}, 10, LATE, "queued"),
        ({}, 27.9, LATE, "queued"),
        ({}, 28, LATE, "failed"),  # its row may say later than it was that it was sent
        ({"sent_at": None}, 3600, LATE, "queued"),  # it says nothing yet: that was a moment ago
        ({"attempt": 2}, 10, LATE, "failed"),  # its message did not say until when it is to be taken
        ({"node": "other"}, 10, LATE, "failed"),  # nobody knows how long it may wait
        ({}, 10, LATE.model_copy(update={"type": "ValueError"}), "failed"),
        ({}, 10, LATE.model_copy(update={"traceback": "of an author's own QueueTimeout"}), "failed"),
    ],
)
def test_a_worker_that_refuses_a_task_is_believed_when_the_task_did_wait(rows, fields, waited, error, status):
    rows.queue_timeouts["slow"] = 30.0
    rows.tasks = {key: task._replace(**fields) for key, task in rows.tasks.items()}
    rows.now += waited
    rows.report("0", status="failed", error=error)
    assert rows.at("0").status == status
    if status == "queued":
        assert (rows.at("0").attempt, rows.at("0").tries) == (2, 1)
        rows.report("0", status="failed", error=error, attempt=2)
        assert rows.at("0").status == "failed", "it is asked twice, not for ever"


def test_nor_is_he_when_the_clock_was_set_a_moment_ago(rows):
    rows.queue_timeouts["slow"] = 30.0
    rows.now, rows.steady_for = rows.now + 3600, 5.0
    rows.report("0", status="failed", error=LATE)
    assert (rows.at("0").status, rows.at("0").attempt) == ("queued", 2)
