"""The rules as a table of examples: one run over rows in memory, checked after every transaction."""

from __future__ import annotations

from uuid import UUID

import pytest

from flowkit.flow.changes import AddTask, AnnounceRun, DeclareConflict, EndRun, Forbid, Orphan
from flowkit.flow.events import Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send
from tests.flow.rows import Rows


def test_a_sequence_passes_outputs_on_and_ends_with_the_last_ones():
    rows = Rows()
    rows.start("a", x=1)
    rows.report("0", ["b"], {"y": 2})
    assert rows.inputs("0.0") == {"y": 2}
    assert rows.at("0.0").inputs is None, "the value is kept once"
    rows.report("0.0", [], {"z": 3}, message="done")
    run = rows.runs["r"]
    assert (run.status, run.message, rows.outputs()) == (RunStatus.SUCCEEDED, "done", {"z": 3})


def test_a_branch_ends_with_both_results_in_path_order():
    rows = Rows()
    rows.start()
    rows.report("0", ["left", "right"], {"x": 1})
    rows.report("0.1", [], {"side": "right"})
    assert rows.runs["r"].status is RunStatus.RUNNING
    rows.report("0.0", [], {"side": "left"})
    assert rows.outputs() == {"results": [{"side": "left"}, {"side": "right"}]}


def test_paths_are_ordered_as_numbers():
    rows = Rows()
    rows.start()
    rows.report("0", ["b"] * 12)
    for index in reversed(range(12)):
        rows.report(f"0.{index}", [], {"i": index})
    assert [result["i"] for result in rows.outputs()["results"]] == list(range(12))


def test_a_node_named_twice_runs_twice():
    rows = Rows()
    rows.start()
    rows.report("0", ["b", "b"])
    assert rows.outstanding() == ["0.0", "0.1"]


def test_a_send_has_inputs_of_its_own_and_may_be_later():
    rows = Rows()
    rows.start()
    rows.report("0", [Send("b", {"own": 1}), Send("c", delay=30)], {"out": 2})
    assert rows.inputs("0.0") == {"own": 1}
    later = rows.at("0.1")
    assert (later.status, later.held_for, later.due, rows.inputs("0.1")) == (TaskStatus.HELD, "delay", 1030, {"out": 2})


def test_a_loop_may_go_round_and_is_stopped_by_its_depth():
    rows = Rows(limits=Limits(max_depth=10))
    rows.start()
    path = "0"
    while rows.runs["r"].status is RunStatus.RUNNING:
        rows.report(path, ["a"])
        path += ".0"
    assert "max_depth" in rows.runs["r"].message
    assert rows.runs["r"].tasks == 9


def test_too_many_tasks_fail_the_run_with_the_limits_name():
    rows = Rows(limits=Limits(max_tasks=5))
    rows.start()
    rows.report("0", ["b"] * 5)
    assert rows.runs["r"].status is RunStatus.FAILED
    assert "max_tasks" in rows.runs["r"].message


def test_a_gather_joins_once_with_results_in_the_order_of_its_sends():
    rows = Rows()
    rows.start()
    sends = [Send("measure", {"i": i}) for i in range(3)]
    rows.report("0", [Gather(sends, then=Send("sum", {"own": True}))], {"from": "opener"})
    for index in (2, 0, 1):
        rows.report(f"0.0.{index}", [], {"v": index})
    assert rows.inputs("0.0.then") == {"from": "opener", "own": True, "results": [{"v": 0}, {"v": 1}, {"v": 2}]}
    rows.report("0.0.then", [], {"total": 3})
    assert rows.outputs() == {"total": 3}


def test_an_empty_gather_fires_at_once():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather([], then="sum")], {"x": 1})
    assert rows.inputs("0.0.then") == {"x": 1, "results": []}
    assert rows.outstanding() == ["0.0.then"]


def test_plain_names_in_a_gather_get_the_outputs():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["b", "c"], then="d")], {"x": 1})
    assert rows.inputs("0.0.0") == rows.inputs("0.0.1") == {"x": 1}


def test_gathers_nest_and_a_branch_is_all_that_it_spawned():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["outer", "plain"], then="end")])
    rows.report("0.0.0", [Gather(["inner", "inner"], then="join")], {"o": 1})
    rows.report("0.0.1", ["x", "y"], {})
    rows.report("0.0.1.0", [], {"leaf": "x"})
    rows.report("0.0.0.0.0", [], {"i": 0})
    rows.report("0.0.1.1", [], {"leaf": "y"})
    rows.report("0.0.0.0.1", [], {"i": 1})
    assert rows.outstanding() == ["0.0.0.0.then"]
    rows.report("0.0.0.0.then", ["more"], {})
    rows.report("0.0.0.0.then.0", [], {"joined": True})
    assert rows.inputs("0.0.then")["results"] == [{"joined": True}, {"results": [{"leaf": "x"}, {"leaf": "y"}]}]


def test_a_failed_task_fails_the_run_and_cancels_what_is_outstanding():
    rows = Rows()
    rows.start()
    rows.report("0", ["bad", "slow"])
    changes = rows.fail("0.0")
    assert [type(change) for change in changes if isinstance(change, EndRun)] == [EndRun]
    run = rows.runs["r"]
    assert (run.status, run.message) == (RunStatus.FAILED, "bad: ValueError: boom")
    assert rows.at("0.1").status is TaskStatus.CANCELLED


def test_a_failure_in_a_nested_gather_reaches_the_run():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["a", "b"], then="end")])
    rows.report("0.0.0", [Gather(["c", "d"], then="join")])
    rows.fail("0.0.0.0.1")
    assert rows.runs["r"].status is RunStatus.FAILED
    assert rows.outstanding() == []


def test_return_exceptions_makes_a_failure_the_value_of_its_branch():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["a", "b"], then="end", return_exceptions=True)])
    rows.report("0.0.0", ["x", "y", "z"])
    rows.report("0.0.0.0", [], {"x": 1})
    rows.fail("0.0.0.1")
    assert rows.at("0.0.0.2").status is TaskStatus.CANCELLED
    rows.report("0.0.1", [], {"fine": True})
    failed, fine = rows.inputs("0.0.then")["results"]
    assert fine == {"fine": True}
    assert (failed["error"]["type"], failed["error"]["message"]) == ("ValueError", "boom")


def test_return_exceptions_catches_what_a_nested_gather_could_not():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["a"], then="end", return_exceptions=True)])
    rows.report("0.0.0", [Gather(["b", "c"], then="join"), "sibling"])
    rows.fail("0.0.0.0.0")
    assert rows.inputs("0.0.then")["results"][0]["error"]["node"] == "b"


def test_what_follows_from_a_sibling_in_the_batch_of_a_failure_is_cancelled_with_the_rest():
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["a", "b"], then="end")])
    bad = rows.result("0.0.0", status="failed", error=wire.Error(type="E"))
    rows.feed(bad, rows.result("0.0.1", ["more"]), bad)
    assert rows.runs["r"].status is RunStatus.FAILED
    assert (rows.at("0.0.1").status, rows.at("0.0.1.0").status) == (TaskStatus.SUCCEEDED, TaskStatus.CANCELLED)


@pytest.mark.parametrize("again", [1, 2])
def test_a_duplicate_result_is_superseded(again):
    rows = Rows()
    rows.start()
    result = rows.result("0", ["b"])
    rows.feed(*[result] * again)
    changes = rows.feed(result)
    assert not [change for change in changes if isinstance(change, AddTask)]
    assert [entry.reason for entry in rows.superseded] == ["the task is succeeded"] * again


def test_only_the_current_attempt_counts():
    rows = Rows()
    task = rows.start()
    rows.report("0", attempt=1, status="retry", retry_in=5)
    held = rows.at("0")
    assert (held.status, held.attempt, held.tries, held.due, held.id) == (TaskStatus.HELD, 2, 2, 1005, task.id)
    rows.report("0", attempt=1, outputs={"late": True})
    assert rows.superseded[0].reason == "attempt 1 is not the current one (2)"
    rows.report("0", outputs={"early": True})  # without attempt: the current one, which nobody was sent
    assert rows.superseded[1].reason == "the task is held (retry), and nobody was sent this attempt"
    rows.pass_time(5)
    rows.report("0", outputs={"any": True})
    assert rows.outputs() == {"any": True}


def test_a_returned_task_is_sent_again_and_uses_up_no_try():
    rows = Rows()
    rows.start()
    rows.report("0", attempt=1, status="returned")
    task = rows.at("0")
    assert (task.status, task.attempt, task.tries, task.sent_at) == (TaskStatus.QUEUED, 2, 1, None)


def test_started_is_noted():
    rows = Rows()
    rows.start()
    rows.report("0", attempt=1, status="started", started_at=990.0, worker="w")
    task = rows.at("0")
    assert (task.status, task.started_at, task.first_started_at, task.worker) == (TaskStatus.RUNNING, 990.0, 990.0, "w")


def test_retries_end_with_the_limit():
    rows = Rows(limits=Limits(max_attempts=2))
    rows.start()
    rows.report("0", attempt=1, status="retry")
    rows.pass_time(0)
    rows.report("0", attempt=2, status="retry")
    assert "max_attempts" in rows.runs["r"].message


def test_a_result_of_an_ended_run_or_an_unknown_task_changes_nothing():
    rows = Rows()
    rows.start()
    late = rows.result("0")
    rows.report("0")
    rows.feed(late, Reported(wire.Result(task_id=UUID(int=7), run_id="r")))
    assert [entry.reason for entry in rows.superseded] == ["the run is succeeded"] * 2


def test_a_result_of_an_unknown_run_is_an_orphan():
    assert Rows().feed(Reported(wire.Result(task_id=UUID(int=7), run_id="ghost"))) == [Orphan("ghost")]


@pytest.mark.parametrize("answers_for", [frozenset(), frozenset({"b"})])
def test_who_may_not_answer_for_a_node_changes_nothing(answers_for):
    rows = Rows()
    rows.start()
    task = rows.at("0")
    forged = Reported(wire.Result(task_id=task.id, run_id="r"), answers_for)
    assert rows.feed(forged) == [Forbid(forged, "a")]
    assert rows.at("0") == task
    rows.feed(Reported(wire.Result(task_id=task.id, run_id="r"), frozenset({"a"})))
    assert rows.runs["r"].status is RunStatus.SUCCEEDED


def test_the_same_start_again_changes_nothing_and_an_ended_run_is_announced():
    rows = Rows()
    start = Started("r", wire.Start(node="a", run_id="r", inputs={"x": [1, {"y": 2}]}))
    rows.feed(start, start)
    assert rows.feed(start) == []
    rows.report("0")
    assert rows.feed(start) == [AnnounceRun("r")]


@pytest.mark.parametrize("other", [wire.Start(node="b", run_id="r"), wire.Start(node="a", run_id="r", inputs={"x": 1})])
def test_another_start_with_the_same_id_is_a_conflict(other):
    rows = Rows()
    rows.start()
    assert rows.feed(Started("r", other)) == [DeclareConflict("r", other)]


@pytest.mark.parametrize(
    ("inputs", "others", "same"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}, True),
        ({"a": [1, -0.0]}, {"a": [1.0, 0]}, True),
        ({"a": 1e15}, {"a": 10**15}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": 1}, {"a": 1.5}, False),
        ({"a": 2**53 + 1}, {"a": 2.0**53}, False),
        ({"a": "1.0"}, {"a": "1"}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": None}, {}, False),
    ],
)
def test_inputs_of_starts_are_compared_as_json_values(inputs, others, same):
    rows = Rows()
    rows.feed(Started("r", wire.Start(node="a", run_id="r", inputs=inputs)))
    other = wire.Start(node="a", run_id="r", inputs=others)
    assert rows.feed(Started("r", other)) == ([] if same else [DeclareConflict("r", other)])
    assert (wire.value_fingerprint("a", inputs) == wire.value_fingerprint("a", others)) is same


def test_a_finished_start_goes_on_behind_the_first_task():
    run = "6f1c1c1e-0000-4000-8000-000000000001"
    rows = Rows()
    finished = wire.Outcome(nodes=("b",), outputs={"sum": 3}, message="ok")
    changes = rows.feed(Started(run, wire.Start(node="a", run_id=run, inputs={"x": 1}, finished=finished)))
    sent = [change.task.node for change in changes if isinstance(change, AddTask) and change.task.status == "queued"]
    assert sent == ["b"]
    assert rows.at("0", run).id == UUID(run)
    assert rows.inputs("0.0", run) == {"sum": 3}


def test_a_start_may_be_delayed():
    rows = Rows()
    rows.feed(Started("r", wire.Start(node="a", run_id="r", delay=60)))
    task = rows.at("0")
    assert (task.status, task.due) == (TaskStatus.HELD, 1060)


def test_a_loop_of_empty_gathers_ends_too():
    rows = Rows(limits=Limits(max_depth=20))
    rows.start()
    path = "0"
    while rows.runs["r"].status is RunStatus.RUNNING:
        rows.report(path, [Gather([], then="a")])
        path += ".0.then"
    assert "max_depth" in rows.runs["r"].message


def test_a_gather_over_the_limit_fails_its_task_with_the_limits_name():
    rows = Rows(limits=Limits(max_gather=2))
    rows.start()
    rows.report("0", [Gather(["a"] * 3, then="b")])
    assert "max_gather" in rows.runs["r"].message


def test_joined_results_over_the_message_size_fail_the_run_with_the_limits_name():
    rows = Rows(limits=Limits(max_message_bytes=100))
    rows.start()
    rows.report("0", [Gather(["a", "a"], then="b")])
    rows.report("0.0.0", [], {"big": "x" * 80})
    rows.report("0.0.1", [], {"big": "x" * 80})
    assert "max_message_bytes" in rows.runs["r"].message


def test_nul_and_odd_text_pass_through():
    rows = Rows()
    rows.start("a", text="\0 ü 😀")
    rows.report("0", ["b"], {"text": "\0"}, message="\0")
    assert rows.inputs("0.0") == {"text": "\0"}
