"""A run begun by a task of another run, which nothing waits for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from flowkit.errors import Unreadable
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait
from tests.flow.rows import Rows

INVOICE = Send("invoice", {"order": 7}, detached=True)


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.start("a", x=1)
    return rows


def child(rows: Rows) -> str:
    [run_id] = [run_id for run_id in rows.runs if run_id != "r"]
    return run_id


def test_a_detached_send_begins_a_run_of_its_own(rows):
    rows.report("0", ["b", INVOICE], {"y": 2})
    run = rows.runs[child(rows)]
    assert (run.node, run.parent, run.origin, run.status) == ("invoice", "r", "detached", RunStatus.RUNNING)
    assert rows.inputs("0", run=run.id) == {"order": 7}
    assert rows.outstanding() == ["0.0"], "the run waits for b alone"
    rows.report("0.0", [], {"z": 3})
    assert rows.outputs() == {"z": 3}


def test_without_inputs_it_gets_the_outputs_and_who_returns_only_that_is_a_leaf(rows):
    rows.report("0", [Send("invoice", detached=True)], {"y": 2})
    assert (rows.runs["r"].status, rows.outputs()) == (RunStatus.SUCCEEDED, {"y": 2})
    assert rows.inputs("0", run=child(rows)) == {"y": 2}


def test_the_same_result_again_begins_nothing_new_and_its_failure_stays_its_own(rows):
    again = rows.result("0", ["b", INVOICE])
    rows.feed(again)
    rows.feed(again)
    rows.report("0", run=child(rows), status="failed")
    assert rows.runs[child(rows)].status is RunStatus.FAILED
    assert rows.runs["r"].status is RunStatus.RUNNING


def test_the_cancelled_parent_leaves_it_alone(rows):
    rows.report("0", ["b", INVOICE])
    rows.command("cancel")
    assert rows.runs["r"].status is RunStatus.CANCELLED
    assert rows.runs[child(rows)].status is RunStatus.RUNNING


def test_a_branch_may_begin_one_and_is_a_value_all_the_same(rows):
    rows.report("0", [Gather([Send("b", {}), Send("b", {})], then="c", return_exceptions=True)])
    rows.report("0.0.0", [INVOICE], {"n": 0})
    rows.report("0.0.1", [], {"n": 1})
    assert rows.inputs("0.0.then") == {"results": [{"n": 0}, {"n": 1}]}


def test_a_delayed_one_is_held_in_its_own_run(rows):
    rows.report("0", [Send("invoice", {}, delay=60, detached=True)])
    [task] = [task for task in rows.tasks.values() if task.run_id != "r"]
    assert (task.held_for, task.due) == ("delay", rows.now + 60)


def test_there_is_an_end_to_how_many_one_task_begins():
    rows = Rows(Limits(max_gather=2))
    rows.start("a")
    rows.report("0", [Send("invoice", {"n": n}, detached=True) for n in range(3)])
    assert "3 detached sends are over max_gather (2)" in rows.runs["r"].message
    assert list(rows.runs) == ["r"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Gather([INVOICE], then="c"), "a Gather waits for its sends"),
        (lambda: Gather(["b"], then=INVOICE), "goes on after a Gather"),
        (lambda: Wait("go", then=INVOICE), "goes on after a Wait"),
        (lambda: Wait("go", then="b", timeout=1, on_timeout=INVOICE), "goes on after a Wait"),
    ],
)
def test_where_something_waits_for_it_it_cannot_stand(make, why):
    with pytest.raises(ValidationError, match=why):
        make()


def test_nor_can_a_foreign_worker_put_it_there():
    body = (
        b'{"task_id": "00000000-0000-0000-0000-000000000001", "run_id": "r", "outputs": {}, "message": "", '
        b'"nodes": [{"gather": {"sends": [{"node": "b", "detached": true}], "then": "c"}}]}'
    )
    with pytest.raises(Unreadable, match="a Gather waits for its sends"):
        wire.decode(wire.Result, body)
