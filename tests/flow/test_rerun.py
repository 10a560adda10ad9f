"""A new run from the middle of an ended one."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.flow import paths
from flowkit.flow.changes import AnnounceRun, RefuseCommand
from flowkit.flow.events import Started
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait
from tests.flow.rows import Rows
from tests.flow.test_order import answer, plans


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.start("a", x=1)
    return rows


def rerun(rows: Rows, path: str | None = None, *, run: str = "r", new: str = "new", **more):
    """Rerun from a path; the changes."""
    if path is not None:
        more["task_id"] = rows.at(path, run).id
    return rows.command("rerun", run, new_run_id=new, **more)


def refusal(changes) -> str:
    (refused,) = [change for change in changes if isinstance(change, RefuseCommand)]
    return refused.reason


def statuses(rows: Rows, run: str = "new") -> dict[str, str]:
    tasks = sorted(
        (task for task in rows.tasks.values() if task.run_id == run), key=lambda task: paths.order(task.path)
    )
    return {task.path: str(task.status) for task in tasks}


def chain(rows: Rows) -> None:
    rows.report("0", ["b"], {"n": 0})
    rows.report("0.0", ["c"], {"n": 1})
    rows.report("0.0.0", [], {"n": 2})


def test_what_is_upstream_is_copied_and_what_is_downstream_runs_again(rows):
    chain(rows)
    rows.now += 10
    rerun(rows, "0.0")
    assert statuses(rows) == {"0": "succeeded", "0.0": "queued"}
    new = rows.runs["new"]
    assert (new.node, new.parent, new.origin, new.started_at, new.tasks) == ("a", "r", "rerun", 1010.0, 2)
    assert rows.inputs("0.0", "new") == {"n": 0}
    rows.report("0.0", ["c"], {"n": 10}, run="new")
    rows.report("0.0.0", [], {"n": 20}, run="new")
    assert (rows.outputs("new"), rows.outputs("r")) == ({"n": 20}, {"n": 2})


def test_ids_are_those_of_a_run_that_was_started_with_the_new_id(rows):
    chain(rows)
    rerun(rows, "0.0.0")
    rows.feed(Started("twin", wire.Start(node="a", run_id="twin", inputs={"x": 1})))
    assert rows.at("0", "new").id == paths.task_id(b"secret", "new", "0")
    assert rows.at("0.0", "new").id == paths.task_id(b"secret", rows.at("0", "new").id, "0.0")
    assert {task.id for task in rows.tasks.values() if task.run_id == "new"}.isdisjoint(
        task.id for task in rows.tasks.values() if task.run_id == "r"
    )


def test_with_edited_inputs(rows):
    chain(rows)
    rerun(rows, "0.0.0", input={"n": 7})
    assert rows.inputs("0.0.0", "new") == {"n": 7}
    rerun(rows, None, new="root", input={"x": 2})
    assert (statuses(rows, "root"), rows.inputs("0", "root")) == ({"0": "queued"}, {"x": 2})
    rerun(rows, None, new="same")
    assert rows.inputs("0", "same") == {"x": 1}
    rerun(rows, None, new="none", input={})
    assert rows.inputs("0", "none") == {}


def test_a_continuation_with_edited_inputs_goes_on_from_those_in_later_reruns_too(rows):
    rows.report("0", [Gather(["b", "b"], then="c")])
    for branch in range(2):
        rows.report(f"0.0.{branch}", [], {"n": branch})
    rows.report("0.0.then", ["d"], {"sum": 1})
    rows.report("0.0.then.0", [])
    rows.now += 10
    rerun(rows, "0.0.then", input={"results": "as somebody has typed them"})
    assert rows.inputs("0.0.then", "new") == {"results": "as somebody has typed them"}
    rows.report("0.0.then", ["d"], {"sum": 7}, run="new")
    rows.report("0.0.then.0", [], run="new")
    rows.now += 10
    rerun(rows, "0.0.then.0", run="new", new="newer")
    assert rows.inputs("0.0.then.0", "newer") == {"sum": 7}


def test_a_command_makes_one_run_and_tells_of_its_end_when_it_comes_again(rows):
    chain(rows)
    command = wire.Command(id=uuid4(), kind="rerun", run_id="r")
    rows.command("rerun", **command.model_dump(include={"id"}))
    made = command.id.hex
    assert statuses(rows, made) == {"0": "queued"}
    assert rows.command("rerun", id=command.id) == []
    rows.report("0", run=made)
    assert rows.command("rerun", id=command.id) == [AnnounceRun(made)]
    assert len(rows.runs) == 2


def test_what_cannot_be_rerun_is_refused_with_the_reason(rows):
    assert "it is running, not succeeded or failed or cancelled" in refusal(rerun(rows))
    chain(rows)
    assert "has no such task" in refusal(rows.command("rerun", task_id=UUID(int=7)))
    rerun(rows, "0.0")
    taken = uuid4()
    assert "a run with this id exists already" in refusal(rerun(rows, "0.0", id=taken))
    rows.report("0.0", run="new")
    assert "a run with this id exists already" in refusal(rerun(rows, id=taken)), "never the end of somebody else's run"
    assert "no run 'ghost'" in refusal(rows.command("rerun", run="ghost"))


def test_siblings_are_copied_as_values_and_the_continuation_fires_anew(rows):
    rows.report("0", [Gather([Send("b", {}), Send("b", {})], then="c")], {"g": 1})
    for branch in (0, 1):
        rows.report(f"0.0.{branch}", [], {"n": branch})
    rows.report("0.0.then", [], {"done": 1})
    rerun(rows, "0.0.1")
    assert statuses(rows) == {"0": "succeeded", "0.0.0": "succeeded", "0.0.1": "queued"}
    rows.report("0.0.1", [], {"n": 5}, run="new")
    assert rows.inputs("0.0.then", "new") == {"g": 1, "results": [{"n": 0}, {"n": 5}]}
    rerun(rows, "0.0.then", new="then")
    assert statuses(rows, "then")["0.0.then"] == "queued"
    assert rows.inputs("0.0.then", "then") == {"g": 1, "results": [{"n": 0}, {"n": 1}]}
    rows.report("0.0.then", [], {"done": 2}, run="then")
    assert rows.outputs("then") == {"done": 2}


def test_of_nested_gathers_every_continuation_around_it_fires_anew(rows):
    rows.report("0", [Gather([Send("b", {}), Send("b", {})], then="c")])
    rows.report("0.0.0", [Gather([Send("b", {})], then="c")])
    rows.report("0.0.1")
    rows.report("0.0.0.0.0")
    rows.report("0.0.0.0.then", ["d"])
    rows.report("0.0.0.0.then.0")
    rows.report("0.0.then", ["e"])
    rows.report("0.0.then.0")
    rerun(rows, "0.0.0.0.0")
    assert statuses(rows) == {"0": "succeeded", "0.0.0": "succeeded", "0.0.0.0.0": "queued", "0.0.1": "succeeded"}
    rerun(rows, "0.0.0.0.then.0", new="then")
    assert [path for path in statuses(rows, "then") if "then" in path] == ["0.0.0.0.then", "0.0.0.0.then.0"]


def test_a_failed_run_is_mended_elsewhere_too(rows):
    rows.report("0", ["b", "c", "d"])
    rows.report("0.1")
    rows.fail("0.0")
    rerun(rows, "0.1")
    assert statuses(rows) == {"0": "succeeded", "0.0": "queued", "0.1": "queued", "0.2": "queued"}


def test_a_cancelled_run(rows):
    rows.report("0", ["b", "c"])
    rows.command("cancel")
    rerun(rows, "0.0", input={"n": 1})
    assert statuses(rows) == {"0": "succeeded", "0.0": "queued", "0.1": "queued"}


def test_from_a_wait_it_waits_anew_with_its_whole_time(rows):
    rows.report("0", [Wait("go", then="b", timeout=60)], {"n": 1})
    rows.command("signal", name="go", input={"ok": True})
    rows.report("0.0.0")
    rows.now += 600
    rerun(rows, "0.0")
    assert (statuses(rows)["0.0"], rows.at("0.0", "new").due) == ("waiting", rows.now + 60)
    rows.command("signal", "new", name="go")
    assert rows.inputs("0.0.0", "new") == {"n": 1, "signal": {}}


def test_from_a_task_that_failed_and_was_handled_its_handler_is_left_out(rows):
    rows.on_error = {"b": "mend"}
    rows.report("0", ["b"], {"n": 1})
    rows.fail("0.0")
    rows.report("0.0.0", [], {"mended": 1})
    rerun(rows, "0.0")
    assert statuses(rows) == {"0": "succeeded", "0.0": "queued"}
    rerun(rows, "0.0.0", new="handler")
    assert statuses(rows, "handler") == {"0": "succeeded", "0.0": "failed", "0.0.0": "queued"}
    rows.report("0.0.0", [], {"mended": 2}, run="handler")
    assert rows.outputs("handler") == {"mended": 2}


@pytest.mark.parametrize("window", [None, 1])
def test_a_branch_whose_failure_was_its_value_gets_another_one(rows, window):
    sends = [Send("b", {}), Send("b", {}), Send("b", {})]
    rows.report("0", [Gather(sends, then="c", return_exceptions=True, max_concurrency=window)])
    rows.report("0.0.0", ["d", "e"])
    rows.fail("0.0.0.0")
    rows.fail("0.0.1")
    rows.report("0.0.2", [], {"n": 2})
    rows.report("0.0.then")
    assert statuses(rows, "r")["0.0.0.1"] == "cancelled"
    rerun(rows, "0.0.0.1")
    expected = {"0": "succeeded", "0.0.0": "succeeded", "0.0.0.0": "queued", "0.0.0.1": "queued"}
    assert statuses(rows) == expected | {"0.0.1": "failed", "0.0.2": "succeeded"}
    rows.report("0.0.0.0", [], {"n": 0}, run="new")
    rows.report("0.0.0.1", [], {"n": 1}, run="new")
    first, second, third = rows.inputs("0.0.then", "new")["results"]
    assert (first, second["error"]["message"], third) == ({"results": [{"n": 0}, {"n": 1}]}, "boom", {"n": 2})


def test_who_opened_a_gather_that_failed_as_a_value_had_succeeded(rows):
    rows.report("0", [Gather([Send("b", {})], then="c", return_exceptions=True)])
    rows.report("0.0.0", [Gather([Send("b", {}), Send("b", {})], then="d", timeout=10)], {"n": 1})
    rows.report("0.0.0.0.0")
    rows.pass_time(11)
    assert rows.inputs("0.0.then")["results"][0]["error"]["type"] == "TimeoutError"
    rows.report("0.0.then")
    rerun(rows, "0.0.0.0.0")
    assert statuses(rows) == {"0": "succeeded", "0.0.0": "succeeded", "0.0.0.0.0": "queued", "0.0.0.0.1": "queued"}
    assert rows.scopes["new", "0.0.0.0"].due == rows.now + 10
    for branch in (0, 1):
        rows.report(f"0.0.0.0.{branch}", run="new")
    assert rows.inputs("0.0.0.0.then", "new") == {"n": 1, "results": [{}, {}]}


def test_the_window_of_a_gather_that_was_cut_short_opens_branch_by_branch(rows):
    rows.report("0", [Gather([Send("b", {}) for _ in range(5)], then="c", max_concurrency=2)])
    rows.report("0.0.0")
    rows.fail("0.0.1")
    rerun(rows, "0.0.2")
    assert list(statuses(rows).values()) == ["succeeded", "succeeded", "queued", "queued", "held", "held"]
    for branch in (1, 2, 3, 4):
        rows.report(f"0.0.{branch}", run="new")
    assert statuses(rows)["0.0.then"] == "queued"


def test_deadlines_begin_anew():
    rows = Rows()
    rows.feed(Started("r", wire.Start(node="a", run_id="r", deadline=60)))
    rows.report("0", ["b"])
    rows.report("0.0")
    rows.now += 600
    rerun(rows, "0.0")
    assert rows.runs["new"].deadline == rows.now + 60


def test_a_timeout_begins_anew_in_a_rerun_of_a_rerun_too(rows):
    rows.report("0", [Gather([Send("b", {}), Send("b", {})], then="c", timeout=30)])
    for path in ("0.0.0", "0.0.1", "0.0.then"):
        rows.report(path)
    for old, new in (("r", "s"), ("s", "t")):
        rows.now += 1000
        rerun(rows, "0.0.1", run=old, new=new)
        assert rows.scopes[new, "0.0"].due == rows.now + 30
        for path in ("0.0.1", "0.0.then"):
            rows.report(path, run=new)


# Any workflow, any of its tasks


def carry_out(rows: Rows, run: str, *, most: int = 1_000) -> list[str]:
    """Run what is queued, as the plans in the inputs say; the paths that ran."""
    ran: list[str] = []
    while len(ran) < most and (queued := [p for p in rows.outstanding(run) if rows.at(p, run).status == "queued"]):
        plan = rows.inputs(queued[0], run)["plan"]
        if plan[0] == "fail":
            rows.report(queued[0], run=run, status="failed")
        else:
            rows.report(queued[0], answer(plan), {"at": queued[0]}, run=run)
        ran.append(queued[0])
    return ran


def settled(rows: Rows, run: str):
    return {task.path: (task.node, task.status) for task in rows.tasks.values() if task.run_id == run}


@settings(max_examples=200, deadline=None)
@given(plans(failures=False), st.data())
def test_from_any_task_of_any_workflow_the_same_comes_out(plan, data):
    rows = Rows()
    rows.start("n", plan=plan)
    every = carry_out(rows, "r")
    path = data.draw(st.sampled_from(every))
    rerun(rows, path)
    copied = [other for other, (_, status) in settled(rows, "new").items() if status is TaskStatus.SUCCEEDED]
    ran = carry_out(rows, "new")
    assert sorted([*copied, *ran]) == sorted(every), "each task is copied or run, never both"
    assert (rows.runs["new"].status, rows.outputs("new")) == (RunStatus.SUCCEEDED, rows.outputs("r"))
    assert settled(rows, "new") == settled(rows, "r")


@settings(max_examples=200, deadline=None)
@given(plans(failures=True), st.integers(0, 20), st.data())
def test_whatever_failed_or_was_cancelled_meanwhile_it_comes_to_an_end(plan, steps, data):
    rows = Rows()
    rows.start("n", plan=plan)
    carry_out(rows, "r", most=steps)
    if not rows.runs["r"].status.ended:
        rows.command("cancel")
    whole = Rows()
    whole.start("n", plan=plan)
    carry_out(whole, "r")
    path = data.draw(st.sampled_from([task.path for task in rows.tasks.values()]))
    rerun(rows, path)
    before = {other for other, (_, status) in settled(rows, "new").items() if status is TaskStatus.SUCCEEDED}
    assert before.isdisjoint(carry_out(rows, "new")), "what is copied does not run again"
    assert rows.runs["new"].status is whole.runs["r"].status
