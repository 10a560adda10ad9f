"""Any order and any duplication of results gives the same final run."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.flow.state import TaskStatus
from flowkit.wire.items import Gather, Send
from tests.flow.rows import Rows

leaf = st.just(("leaf",))
windows = st.none() | st.integers(1, 2)
failing = st.just(("fail",))


def plans(failures: bool):
    """What each task of a workflow returns: a tree of leaves, plain fan-outs and Gathers."""
    ends = leaf | failing if failures else leaf
    return st.recursive(
        ends,
        lambda inner: st.one_of(
            st.tuples(st.just("names"), st.lists(inner, min_size=1, max_size=3)),
            st.tuples(st.just("gather"), st.lists(inner, max_size=3), inner, st.booleans(), windows),
        ),
        max_leaves=12,
    )


def answer(plan):
    """The items a task with this plan returns; the plan of each child travels in its inputs."""
    match plan:
        case ("names", children):
            return [Send("n", {"plan": child}) for child in children]
        case ("gather", children, then, exceptions, window):
            sends = [Send("n", {"plan": child}) for child in children]
            then = Send("n", {"plan": then})
            return [Gather(sends, then=then, return_exceptions=exceptions, max_concurrency=window)]
    return []


def run(plan, draw, *, batches: bool, duplicates: bool) -> Rows:
    rows = Rows()
    rows.start("n", plan=plan)
    old = []
    while outstanding := rows.outstanding():
        waiting = [path for path in outstanding if rows.at(path).status is TaskStatus.QUEUED]
        assert waiting, f"a window that nobody opens again: {outstanding}"
        size = draw(st.integers(1, len(waiting))) if batches else 1
        chosen = draw(st.permutations(waiting))[:size]
        events = []
        for path in chosen:
            plan = rows.inputs(path)["plan"]
            if plan[0] == "fail":
                events.append(rows.result(path, status="failed"))
            else:
                events.append(rows.result(path, answer(plan), {"at": path}))
        if duplicates and old:
            events += draw(st.lists(st.sampled_from(old), max_size=3))
        old += events
        if duplicates:
            events += draw(st.lists(st.sampled_from(events), max_size=3))
        rows.feed(*events)
    return rows


def final(rows: Rows):
    tasks = {task.path: (task.node, task.status, task.leaf_of, task.id) for task in rows.tasks.values()}
    return rows.runs["r"].status, rows.outputs(), tasks


@settings(max_examples=150, deadline=None)
@given(plans(failures=False), st.data())
def test_any_order_and_duplication_gives_the_same_run(plan, data):
    first = run(plan, data.draw, batches=False, duplicates=False)
    again = run(plan, data.draw, batches=True, duplicates=True)
    assert final(first) == final(again)


@settings(max_examples=150, deadline=None)
@given(plans(failures=True), st.data())
def test_with_failures_every_run_ends_with_nothing_outstanding(plan, data):
    rows = run(plan, data.draw, batches=True, duplicates=True)
    assert rows.runs["r"].status.ended
    assert rows.outstanding() == []
    then = [task.path for task in rows.tasks.values() if task.path.endswith("then")]
    assert len(then) == len(set(then)), "a continuation fires once"
    if rows.runs["r"].status == "succeeded":
        assert all(task.status is not TaskStatus.RUNNING for task in rows.tasks.values())
