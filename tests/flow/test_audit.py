"""What an audit finds in rows that somebody, or some defect, has changed. That it finds nothing in others is checked
after every transaction of every example in this folder (``Rows.check``)."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from flowkit.flow.audit import Whole, problems
from flowkit.flow.state import RunStatus, ScopeStatus, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire.items import Gather, Send
from tests.flow.rows import SECRET, Rows


@pytest.fixture
def ended() -> Whole:
    """A run with a Gather of three, a detached run, and a task behind them."""
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["b", "b", "b"], then="c"), Send("away", detached=True)], {"x": 1})
    for branch in (1, 0, 2):
        rows.report(f"0.0.{branch}", [], {"branch": branch})
    rows.report("0.0.then", ["d"])
    rows.report("0.0.then.0", [], {"y": 2})
    assert rows.runs["r"].status is RunStatus.SUCCEEDED
    return rows.whole()


@pytest.fixture
def running() -> Whole:
    rows = Rows()
    rows.start()
    rows.report("0", [Gather(["b", "b"], then="c"), "e"])
    rows.report("0.0.0", [])
    return rows.whole()


def found(whole: Whole) -> list[str]:
    return list(problems(whole, SECRET))


def changed(whole: Whole, path: str, **fields) -> Whole:
    return replace(whole, tasks=tuple(task._replace(**fields) if task.path == path else task for task in whole.tasks))


def without(whole: Whole, path: str) -> Whole:
    tasks = tuple(task for task in whole.tasks if task.path != path)
    return replace(whole, tasks=tasks, run=whole.run._replace(tasks=len(tasks)))


def with_one_more(whole: Whole, path: str, **fields) -> Whole:
    one = Task(run_id="r", path=path, scope="", node="x", status=TaskStatus.CANCELLED, created_at=0, **fields)
    return replace(whole, tasks=(*whole.tasks, one), run=whole.run._replace(tasks=len(whole.tasks) + 1))


def scope_changed(whole: Whole, path: str, **fields) -> Whole:
    return replace(whole, scopes=tuple(one._replace(**fields) if one.path == path else one for one in whole.scopes))


def test_nothing_is_wrong_with_a_run_as_it_should_be(ended, running):
    assert found(ended) == found(running) == []


def test_a_task_that_stands_twice(ended):
    twice = replace(ended, tasks=(*ended.tasks, ended.at["0.0.1"]._replace(id=UUID(int=1), leaf_of=None)))
    assert found(twice)[:2] == ["2 tasks stand at 0.0.1", "the run counts 6 tasks, and has 7"]


def test_something_outstanding_in_an_ended_run(ended):
    assert found(changed(ended, "0.0.then.0", status=TaskStatus.QUEUED))[0] == (
        "task 0.0.then.0 (d) is queued, and the run is succeeded"
    )
    assert "scope 0.0 is open, and the run is succeeded" in found(scope_changed(ended, "0.0", status=ScopeStatus.OPEN))


def test_a_counter_that_is_wrong(running):
    assert found(scope_changed(running, "0.0", outstanding=2)) == ["scope 0.0 counts 2 outstanding, and has 1"]
    assert found(scope_changed(running, "", outstanding=0)) == ["scope of the run counts 0 outstanding, and has 2"]


def test_a_run_with_nothing_left_that_goes_on(ended):
    again = replace(ended, run=ended.run._replace(status=RunStatus.RUNNING))
    assert found(again) == ["the run is running, and nothing in it is outstanding"]


def test_a_child_that_was_never_made(ended):
    assert "task 0.0.then (c) named a send, and no task stands at 0.0.then.0" in found(without(ended, "0.0.then.0"))


def test_a_child_that_nobody_asked_for(ended):
    secret_child = with_one_more(ended, "0.2", id=UUID(int=5))
    assert found(secret_child) == [
        "task 0 (a) named 2 items, and more follow from it",
        "task 0.2 (x) has an id that does not follow from its place: 00000000-0000-0000-0000-000000000005",
    ]
    assert "task 0 (a) named a detached, and a task stands at 0.1" in found(with_one_more(ended, "0.1", id=UUID(int=5)))
    assert "task 0.7.0 (x) follows from nothing" in found(with_one_more(ended, "0.7.0", id=UUID(int=5)))
    assert "task 0.0.3 (x) is a branch of a Gather that has 3" in found(with_one_more(ended, "0.0.3", id=UUID(int=5)))


def test_an_id_that_does_not_follow_from_its_place(ended):
    assert found(changed(ended, "0.0.2", id=UUID(int=9)))[0].startswith("task 0.0.2 (b) has an id that does not follow")


def test_a_task_that_follows_from_one_that_is_not_done(running):
    assert "task 0.1 (e) follows from one that is running" in found(changed(running, "0", status=TaskStatus.RUNNING))


def test_a_gather_that_never_went_on(ended):
    assert "the Gather at 0.0 is over, and nothing went on" in found(without(ended, "0.0.then"))


def test_a_gather_that_went_on_too_early(running):
    early = with_one_more(running, "0.0.then", id=UUID(int=5))
    assert "task 0.0.then (x) goes on from a Gather that is open" in found(early)


def test_a_gather_that_lost_a_branch(ended):
    assert "the Gather at 0.0 has no task for 1 of 3 branches, such as 1" in found(without(ended, "0.0.1"))
    assert "the Gather at 0.0 has values of 2 of 3 branches" in found(changed(ended, "0.0.1", leaf_of=None))
    lost = replace(ended, scopes=tuple(scope for scope in ended.scopes if scope.path != "0.0"))
    assert "a Gather of 3 stood at 0.0, and no scope is there" in found(lost)


def test_results_in_the_wrong_order(ended):
    then = codec.loads(ended.at["0.0.then"].inputs)
    then["results"].reverse()
    assert found(changed(ended, "0.0.then", inputs=codec.dumps(then))) == [
        "task 0.0.then (c) got results that are not those of its Gather in order"
    ]


def test_an_end_that_nobody_announced(ended):
    silent = replace(ended, unannounced_since=100.0)
    assert list(problems(silent, SECRET, announced_before=101.0)) == ["it has ended, and its end was never announced"]
    assert list(problems(silent, SECRET, announced_before=99.0)) == [], "it ended a moment ago"
    assert list(problems(ended, SECRET, announced_before=101.0)) == []


def test_outputs_that_are_somebody_else_s(ended):
    assert found(replace(ended, run=ended.run._replace(outputs=b'{"y": 3}'))) == [
        "the run's outputs are not those of the tasks that end it"
    ]
