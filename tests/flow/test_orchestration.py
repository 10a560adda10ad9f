"""Waiting, failing over, being told what to do: the rules beside the way round."""

from __future__ import annotations

from uuid import UUID

import pytest

from flowkit.flow.changes import RefuseCommand, Tell
from flowkit.flow.events import Started
from flowkit.flow.limits import Limits
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait
from tests.flow.rows import Rows


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.start("a", x=1)
    return rows


# Wait


def test_a_wait_goes_on_with_its_signal(rows):
    rows.report("0", [Wait("approval", then="ship")], {"order": 7})
    assert (rows.at("0.0").status, rows.outstanding()) == (TaskStatus.WAITING, ["0.0"])
    rows.command("signal", name="approval", input={"by": "ann"})
    assert rows.at("0.0.0").node == "ship"
    assert rows.inputs("0.0.0") == {"order": 7, "signal": {"by": "ann"}}
    rows.report("0.0.0", [], {"shipped": True})
    assert rows.outputs() == {"shipped": True}


def test_a_signal_without_input_is_an_empty_object(rows):
    rows.report("0", [Wait("go", then=Send("b", {"own": 1}))])
    rows.command("signal", name="go")
    assert rows.inputs("0.0.0") == {"own": 1, "signal": {}}


def test_signals_that_come_early_are_kept_in_order_and_each_ends_one_wait(rows):
    for number in (1, 2, 3):
        rows.command("signal", name="go", input={"n": number})
    rows.report("0", [Wait("go", then="b"), Wait("go", then="b")])
    assert [rows.inputs(path)["signal"]["n"] for path in ("0.0.0", "0.1.0")] == [1, 2]
    assert [signal.input for signal in rows.signals["r", "go"]] == [b'{"n":3}']


def test_one_signal_ends_the_oldest_wait_only(rows):
    rows.report("0", [Wait("go", then="b"), Wait("go", then="c"), Wait("other", then="d")])
    rows.command("signal", name="go")
    assert rows.outstanding() == ["0.0.0", "0.1", "0.2"]


def test_two_signals_in_one_batch_end_two_waits(rows):
    from flowkit.flow.events import Commanded

    rows.report("0", [Wait("go", then="b"), Wait("go", then="b")])
    commands = [wire.Command(id=UUID(int=n), kind="signal", run_id="r", name="go", input={"n": n}) for n in (1, 2, 2)]
    rows.feed(*map(Commanded, commands))
    assert [rows.inputs(path)["signal"]["n"] for path in ("0.0.0", "0.1.0")] == [1, 2]
    assert not rows.signals.get(("r", "go"))


def test_a_signal_and_its_wait_in_one_batch_meet(rows):
    from flowkit.flow.events import Commanded

    signal = Commanded(wire.Command(id=UUID(int=1), kind="signal", run_id="r", name="go"))
    rows.feed(signal, rows.result("0", [Wait("go", then="b")]))
    assert rows.outstanding() == ["0.0.0"]
    assert not rows.signals["r", "go"]


def test_a_signal_is_applied_once_by_its_id(rows):
    rows.report("0", [Wait("go", then="b"), Wait("go", then="b")])
    for _ in range(3):
        rows.command("signal", name="go", id=UUID(int=5))
    assert rows.outstanding() == ["0.0.0", "0.1"]


def test_a_wait_that_nobody_ends_fails_or_goes_elsewhere(rows):
    rows.report(
        "0", [Gather(["x"], then="end", return_exceptions=True), Wait("go", then="b", timeout=10, on_timeout="c")]
    )
    rows.report("0.0.0", [Wait("never", then="b", timeout=20)], {"y": 2})
    rows.pass_time(9)
    assert rows.outstanding() == ["0.0.0.0", "0.1"]
    rows.pass_time(1)
    assert rows.at("0.1.0").node == "c"
    rows.pass_time(10)
    (failed,) = rows.inputs("0.0.then")["results"]
    assert failed["error"]["type"] == "TimeoutError"
    assert "no signal 'never' came within 20 s" in failed["error"]["message"]


def test_a_late_signal_after_the_timeout_is_kept(rows):
    rows.report("0", [Wait("go", then="b", timeout=1, on_timeout="c")])
    rows.pass_time(1)
    rows.command("signal", name="go")
    assert len(rows.signals["r", "go"]) == 1


def test_a_result_for_a_wait_is_refused(rows):
    rows.report("0", [Wait("go", then="b")])
    rows.report("0.0", [], {"forged": True})
    assert rows.superseded[0].reason == "the task waits for a signal"


# on_error


def test_on_error_goes_on_in_the_place_of_the_failed_task(rows):
    rows.on_error["b"] = "cleanup"
    rows.report("0", [Gather([Send("b", {"i": 1}), "c"], then="end")])
    rows.fail("0.0.0")
    handler = rows.inputs("0.0.0.0")
    assert (handler["inputs"], handler["error"]["type"], handler["error"]["node"]) == ({"i": 1}, "ValueError", "b")
    rows.report("0.0.0.0", [], {"clean": True})
    rows.report("0.0.1", [], {"c": 1})
    assert rows.inputs("0.0.then")["results"] == [{"clean": True}, {"c": 1}]


def test_the_failure_of_a_handler_goes_to_its_own_handler(rows):
    rows.on_error |= {"a": "mend", "mend": "report"}
    rows.fail("0")
    rows.fail("0.0", message="worse")
    report = rows.at("0.0.0")
    assert (report.node, report.handler) == ("report", True)
    error = rows.inputs("0.0.0")["error"]
    assert (error["node"], error["message"]) == ("mend", "worse")
    assert (error["cause"]["node"], error["cause"]["message"]) == ("a", "boom")
    rows.report("0.0.0", [], {"reported": 1})
    assert (rows.runs["r"].status, rows.outputs()) == (RunStatus.SUCCEEDED, {"reported": 1})


@pytest.mark.parametrize(
    ("on_error", "handlers"),
    [
        ({"a": "mend"}, ["mend"]),
        ({"a": "a"}, ["a"]),
        ({"a": "mend", "mend": "mend"}, ["mend"]),
        ({"a": "mend", "mend": "a"}, ["mend", "a"]),
        ({"a": "b", "b": "c", "c": "b"}, ["b", "c"]),
        ({"a": "b1", **{f"b{n}": f"b{n + 1}" for n in range(1, 9)}}, ["b1", "b2", "b3", "b4", "b5"]),
    ],
)
def test_each_node_handles_once_in_a_chain_of_failures(rows, on_error, handlers):
    rows.on_error |= on_error
    path = "0"
    while rows.runs["r"].status is RunStatus.RUNNING:
        rows.fail(path, message=f"at {path}")
        path += ".0"
    assert [rows.at("0" + ".0" * (number + 1)).node for number in range(len(handlers))] == handlers
    message = rows.runs["r"].message
    assert message.startswith(f"{handlers[-1]}: ValueError: at 0")
    assert message.endswith("while handling the failure of a: ValueError: at 0"), "the first error is never hidden"


def test_a_sentence_that_an_error_ends_with_ends_before_what_it_handled(rows):
    rows.on_error |= {"a": "mend"}
    rows.fail("0")
    rows.fail("0.0", message="Create it.")
    assert "Create it; while handling" in rows.runs["r"].message


def test_a_failed_run_with_handlers_goes_on_from_the_last_one(rows):
    rows.on_error |= {"a": "mend", "mend": "report"}
    for path in ("0", "0.0", "0.0.0"):
        rows.fail(path)
    rows.command("retry")
    assert rows.outstanding() == ["0.0.0"]


def test_a_deadline_names_the_failure_that_nobody_handled():
    rows = Rows(on_error={"a": "nobody"})
    rows.feed(Started("r", wire.Start(node="a", run_id="r", deadline=60)))
    rows.fail("0")
    rows.pass_time(60)
    assert rows.runs["r"].status is RunStatus.FAILED
    late = "a: DeadlineExceeded: the run did not end within 60 s"
    assert rows.runs["r"].message == f"{late}; while handling the failure of a: ValueError: boom"


# Timeouts


def test_a_deadline_ends_a_paused_run_too():
    rows = Rows()
    rows.feed(Started("r", wire.Start(node="a", run_id="r", deadline=60)))
    rows.command("pause")
    rows.pass_time(60)
    assert rows.runs["r"].status is RunStatus.FAILED
    assert "DeadlineExceeded: the run did not end within 60 s" in rows.runs["r"].message


@pytest.mark.parametrize(
    ("item", "late"),
    [
        (Send("b", delay=5), "queued"),
        (Wait("go", then="b", timeout=5), "failed"),
        (Wait("go", then="b", timeout=5, on_timeout="c"), "succeeded"),
        (Gather(["b"], then="c", timeout=5), "cancelled"),
    ],
)
def test_what_is_due_in_a_paused_run_happens_when_it_is_resumed(rows, item, late):
    rows.report("0", [item])
    (path,) = rows.outstanding()
    rows.command("pause")
    before = rows.at(path)
    rows.pass_time(3600)
    assert rows.at(path) == before
    rows.command("resume")
    rows.pass_time(0)
    assert rows.at(path).status == late


def test_a_gathers_timeout_fails_the_run(rows):
    rows.report("0", [Gather(["b", "c"], then="end", timeout=5)])
    rows.report("0.0.0", [], {"fine": 1})
    rows.pass_time(5)
    assert "TimeoutError" in rows.runs["r"].message
    assert rows.outstanding() == []


def test_with_return_exceptions_the_unfinished_branches_are_the_timeout(rows):
    rows.report("0", [Gather(["b", "c", "d"], then="end", timeout=5, return_exceptions=True)])
    rows.report("0.0.0", [], {"fine": 1})
    rows.report("0.0.1", [Gather(["x", "y"], then="inner")])
    rows.pass_time(5)
    fine, nested, slow = rows.inputs("0.0.then")["results"]
    assert (fine, nested["error"]["type"], slow["error"]["type"]) == ({"fine": 1}, "TimeoutError", "TimeoutError")
    assert rows.outstanding() == ["0.0.then"]


def test_a_nested_gathers_timeout_is_the_value_of_its_branch(rows):
    rows.report("0", [Gather(["b", "c"], then="end", return_exceptions=True)])
    rows.report("0.0.0", [Gather(["x", "y"], then="inner", timeout=5)], {"opener": 1})
    rows.pass_time(5)
    rows.report("0.0.1", [], {"fine": 1})
    timed_out, fine = rows.inputs("0.0.then")["results"]
    assert (timed_out["error"]["type"], fine) == ("TimeoutError", {"fine": 1})


def test_a_gather_that_ended_in_time_is_left_alone(rows):
    rows.report("0", [Gather(["b"], then="end", timeout=5)])
    rows.report("0.0.0")
    rows.pass_time(60)
    assert rows.outstanding() == ["0.0.then"]


def test_a_run_that_passes_its_deadline_fails():
    rows = Rows()
    rows.feed(Started("r", wire.Start(node="a", run_id="r", deadline=60)))
    rows.pass_time(60)
    run = rows.runs["r"]
    assert (run.status, run.message) == (RunStatus.FAILED, "a: DeadlineExceeded: the run did not end within 60 s")


# max_concurrency


def sent(rows: Rows) -> list[str]:
    return [path for path in rows.outstanding() if rows.at(path).status is TaskStatus.QUEUED]


def test_only_a_window_of_branches_runs_at_a_time(rows):
    rows.report("0", [Gather([Send("b", {"i": i}) for i in range(5)], then="end", max_concurrency=2)])
    assert sent(rows) == ["0.0.0", "0.0.1"]
    rows.report("0.0.1", ["more"])  # the branch goes on: no room yet
    assert sent(rows) == ["0.0.0", "0.0.1.0"]
    rows.report("0.0.1.0", [], {"i": 1})
    assert sent(rows) == ["0.0.0", "0.0.2"]
    for path, i in (("0.0.2", 2), ("0.0.0", 0), ("0.0.3", 3), ("0.0.4", 4)):
        rows.report(path, [], {"i": i})
    assert [result["i"] for result in rows.inputs("0.0.then")["results"]] == [0, 1, 2, 3, 4]


def test_a_failed_branch_makes_room_too(rows):
    options = {"max_concurrency": 1, "return_exceptions": True}
    rows.report("0", [Gather(["b", "c", "d"], then="end", **options)])
    rows.fail("0.0.0")
    rows.report("0.0.1", [Gather(["x", "y"], then="inner", max_concurrency=1)])
    assert sent(rows) == ["0.0.1.0.0"]
    rows.fail("0.0.1.0.0")
    rows.report("0.0.2", [], {"fine": 1})
    assert ["error" in result for result in rows.inputs("0.0.then")["results"]] == [True, True, False]


def test_a_failed_branch_fails_the_run_with_a_window_too(rows):
    rows.report("0", [Gather(["b", "c", "d"], then="end", max_concurrency=1)])
    rows.fail("0.0.0")
    assert rows.runs["r"].status is RunStatus.FAILED
    rows.command("retry")
    assert sent(rows) == ["0.0.0"], "what was held for the window is held again"
    rows.report("0.0.0")
    assert sent(rows) == ["0.0.1"]


def test_a_timeout_ends_the_branches_of_a_window(rows):
    options = {"max_concurrency": 1, "return_exceptions": True, "timeout": 5}
    rows.report("0", [Gather(["b", "c", "d"], then="end", **options)])
    rows.report("0.0.0", [], {"fine": 1})
    rows.report("0.0.1", ["more"])
    rows.pass_time(5)
    assert ["error" in result for result in rows.inputs("0.0.then")["results"]] == [False, True, True]


def test_a_delay_inside_a_window_is_refused(rows):
    rows.report("0", [Gather([Send("b", delay=1)], then="end", max_concurrency=1)])
    assert "a Send with a delay cannot stand in a Gather with max_concurrency" in rows.runs["r"].message


def test_a_result_of_a_branch_that_was_never_sent_changes_nothing(rows):
    """Applied, it would end a branch that never took a place, and make room for one too many."""
    rows.report("0", [Gather([Send("b", {"i": i}) for i in range(4)], then="end", max_concurrency=1)])
    rows.report("0.0.2", [], {"forged": True})
    rows.report("0.0.2", attempt=1, status="started", started_at=1000.0, worker="w")
    rows.report("0.0.2", attempt=1, status="failed")
    assert {late.reason for late in rows.superseded} == {
        "the task is held (max_concurrency), and nobody was sent this attempt"
    }
    for number in range(4):
        assert sent(rows) == [f"0.0.{number}"]
        rows.report(f"0.0.{number}", [], {"i": number})
    assert [result["i"] for result in rows.inputs("0.0.then")["results"]] == [0, 1, 2, 3]


def test_nor_does_one_of_a_branch_that_waits_again_after_a_retry(rows):
    rows.report("0", [Gather(["b", "c", "d"], then="end", max_concurrency=1)])
    rows.fail("0.0.0")
    rows.command("retry")
    rows.report("0.0.1", [], {"forged": True})
    rows.report("0.0.0")
    assert sent(rows) == ["0.0.1"]


def test_nor_does_one_of_a_delayed_task(rows):
    rows.report("0", [Send("b", delay=5)])
    rows.report("0.0", ["c"])
    assert rows.superseded[0].reason == "the task is held (delay), and nobody was sent this attempt"
    rows.pass_time(5)
    rows.report("0.0", [], {"in": "time"})
    assert rows.outputs() == {"in": "time"}


# Commands


def test_cancel_ends_the_run_and_tells_the_workers(rows):
    rows.report("0", ["b", Wait("go", then="c")])
    changes = rows.command("cancel")
    assert rows.runs["r"].status is RunStatus.CANCELLED
    assert [change.control.kind for change in changes if isinstance(change, Tell)] == ["cancel"]


def test_a_paused_run_holds_what_would_be_sent_until_it_is_resumed(rows):
    rows.report("0", ["b", "c"])
    rows.command("pause")
    assert {rows.at(path).held_for for path in ("0.0", "0.1")} == {"paused"}
    rows.report("0.0", ["d"])  # it had been sent after all
    rows.report("0.1", attempt=1, status="returned")
    assert {task.held_for for task in rows.tasks.values() if task.status is TaskStatus.HELD} == {"paused"}
    rows.command("resume")
    assert [rows.at(path).status for path in rows.outstanding()] == [TaskStatus.QUEUED] * 2


def test_time_stands_still_in_a_paused_run(rows):
    rows.report("0", [Send("b", delay=5), Wait("go", then="c", timeout=5)])
    rows.command("pause")
    rows.pass_time(10)
    assert rows.outstanding() == ["0.0", "0.1"]
    rows.command("resume")
    rows.pass_time(0)
    assert "TimeoutError" in rows.runs["r"].message


def test_retry_takes_up_the_failed_tasks_and_keeps_what_is_done(rows):
    rows.report("0", [Gather(["b", "c", "d"], then="end"), Wait("go", then="e")])
    rows.report("0.0.0", [], {"done": 1})
    rows.fail("0.0.1")
    assert rows.runs["r"].status is RunStatus.FAILED
    rows.command("retry")
    assert rows.outstanding() == ["0.0.1", "0.0.2", "0.1"]
    assert (rows.at("0.0.1").attempt, rows.at("0.0.1").tries) == (2, 1)
    assert rows.at("0.1").status is TaskStatus.WAITING
    rows.report("0.0.1", [], {"again": 1})
    rows.report("0.0.2", [], {"d": 1})
    assert rows.inputs("0.0.then")["results"] == [{"done": 1}, {"again": 1}, {"d": 1}]


def test_what_is_delayed_keeps_its_time_when_a_run_goes_on(rows):
    rows.report("0", [Send("b", delay=100), "c", "d"])
    rows.report("0.1", attempt=1, status="retry", retry_in=50)
    for kind in ("pause", "resume"):
        rows.command(kind)
        assert [(rows.at(path).held_for, rows.at(path).due) for path in ("0.0", "0.1")] == [
            ("delay", 1100.0), ("retry", 1050.0),
        ]  # fmt: skip
    for seconds, waiting in ((20, ["0.0", "0.1"]), (40, ["0.0"]), (60, [])):  # twice before, and once after its time
        rows.fail("0.2")
        rows.now += seconds
        rows.command("retry")
        rows.pass_time(0)
        assert [path for path in rows.outstanding() if rows.at(path).status is TaskStatus.HELD] == waiting
    for path in ("0.0", "0.1", "0.2"):
        rows.report(path)
    assert rows.runs["r"].status is RunStatus.SUCCEEDED


def test_a_resumed_run_releases_only_what_its_pause_held(rows):
    rows.node_limits["mail"] = NodeLimit(limit=1)
    rows.report("0", [Gather(["b", "c"], then="end", max_concurrency=1), "mail", "d", Send("e", delay=5)])
    before = {path: (rows.at(path).status, rows.at(path).held_for) for path in rows.outstanding()}
    rows.command("pause")
    rows.command("resume")
    assert {path: (rows.at(path).status, rows.at(path).held_for) for path in rows.outstanding()} == before


def test_retry_leaves_failures_that_were_values(rows):
    rows.report("0", [Gather(["b", "c"], then="end", return_exceptions=True)])
    rows.report("0.0.0", [Gather(["x", "y"], then="inner")])
    rows.fail("0.0.0.0.0")
    rows.report("0.0.1")
    rows.fail("0.0.then")
    rows.command("retry")
    assert rows.outstanding() == ["0.0.then"]


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("resume", {}, "it is running, not paused"),
        ("retry", {}, "it is running, not failed"),
        ("signal", {}, "a signal has a name"),
        ("rerun", {}, "it is running, not succeeded or failed or cancelled"),
    ],
)
def test_commands_that_make_no_sense_are_refused_with_the_reason(rows, kind, more, said):
    (refused,) = [change for change in rows.command(kind, **more) if isinstance(change, RefuseCommand)]
    assert said in refused.reason


def test_commands_for_ended_and_unknown_runs_are_refused(rows):
    rows.report("0")
    for kind in ("cancel", "pause", "signal"):
        (refused,) = [change for change in rows.command(kind, name="x") if isinstance(change, RefuseCommand)]
        assert "it is succeeded" in refused.reason
    (refused,) = rows.command("cancel", run="ghost")
    assert "no run 'ghost'" in refused.reason


# Process deaths


def test_a_task_that_kills_its_processes_fails_with_that_reason():
    rows = Rows(limits=Limits(max_deaths=3))
    rows.start()
    for number in range(3):
        rows.report("0", attempt=1, status="started", started_at=1000.0 + number, worker=f"w{number}")
        rows.report("0", attempt=1, status="started", started_at=1000.0 + number, worker=f"w{number}")  # a duplicate
        assert rows.runs["r"].status is RunStatus.RUNNING
    rows.report("0", attempt=1, status="started", started_at=1004.0, worker="w4")
    assert "ProcessDied" in rows.runs["r"].message
