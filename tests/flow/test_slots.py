"""Limits of nodes: in which slot a task counts, how much room that has, and what happens to what is held there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.flow import limiting, slots
from flowkit.flow.changes import AddTask
from flowkit.flow.slots import MissingKey, NodeLimit
from flowkit.flow.state import RunStatus, State, TaskStatus
from flowkit.wire.items import Gather, Send, Wait
from tests.flow.rows import Rows

BY_CUSTOMER = NodeLimit(limit=2, key="customer")


# In which slot


def test_a_task_counts_in_the_slot_of_its_node():
    assert slots.slot("charge", NodeLimit(limit=2), dict) == "charge"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a", 'charge customer="a"'),
        (7, "charge customer=7"),
        (None, "charge customer=null"),
        ({"b": 1, "a": [2]}, 'charge customer={"a":[2],"b":1}'),
        ("é\x00 \n", 'charge customer="é\\u0000 \\n"'),
    ],
)
def test_with_a_key_it_counts_in_that_of_its_value(value, name):
    found = slots.slot("charge", BY_CUSTOMER, lambda: {"customer": value})
    assert found == name
    assert (slots.node_of(found), slots.key_of(found)) == ("charge", name.partition(" ")[2])


def test_equal_objects_count_together_and_long_values_apart():
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert slots.slot("n", BY_CUSTOMER, lambda: {"customer": one}) == slots.slot(
        "n", BY_CUSTOMER, lambda: {"customer": other}
    )
    long = [slots.slot("n", BY_CUSTOMER, lambda end=end: {"customer": "x" * 10_000 + end}) for end in "ab"]
    assert len(set(long)) == 2
    assert all(len(name) < 120 for name in long)


def test_a_missing_key_is_told_with_what_is_there():
    with pytest.raises(MissingKey, match=r"'charge' is limited by the key 'customer'.* they have: amount, order"):
        slots.slot("charge", BY_CUSTOMER, lambda: {"order": 1, "amount": 2})


# How much room


@pytest.mark.parametrize(
    ("limit", "out", "next_at", "room"),
    [
        (None, 7, None, 100),
        (NodeLimit(limit=5), 0, None, 5),
        (NodeLimit(limit=5), 3, None, 2),
        (NodeLimit(limit=5), 9, None, 0),  # it was lowered
        (NodeLimit(rate="1/s"), 0, None, 1),
        (NodeLimit(rate="1/s"), 0, 1000.5, 0),
        (NodeLimit(rate="1/s"), 0, 1000.0, 1),
        (NodeLimit(rate="1/s"), 0, 900.0, 1),  # what was not used is not saved up
        (NodeLimit(rate="100/s"), 0, None, 1),
        (NodeLimit(rate="100/s"), 0, 999.95, 6),
        (NodeLimit(rate="100/s"), 0, 999.6, 26),  # a late look makes up for a quarter of a second
        (NodeLimit(limit=3, rate="100/s"), 1, 999.9, 2),
        (NodeLimit(limit=3, rate="1/min"), 0, 1059.0, 0),
    ],
)
def test_room(limit, out, next_at, room):
    assert slots.room(limit, out, next_at, 1000.0, 100).tasks == room


@given(
    st.sampled_from(["1/s", "3/s", "7/min", "100/s", "1000/s", "2/30s"]),
    st.lists(st.floats(0.01, 3), min_size=1, max_size=60),
)
def test_no_rate_is_ever_exceeded(rate, pauses):
    """However the looks fall: in any stretch of time no more than its rate allows, and what one look may catch up."""
    limit, every = NodeLimit(rate=rate), slots.rates.interval(rate)
    now, at, went = 1000.0, None, []
    for pause in pauses:
        now += pause
        had = slots.room(limit, 0, at, now, 10_000)
        at = slots.next_at(limit, had.earliest, had.tasks)
        went.append((now, had.tasks))
    for first, (begin, _) in enumerate(went):
        for last, (end, _) in enumerate(went[first:], first):
            assert sum(count for _, count in went[first : last + 1]) <= (end - begin + slots.BURST) / every + 1 + 1e-6


@given(st.sampled_from(["1/s", "100/s", "7/min"]), st.lists(st.floats(0.01, 0.25), min_size=20, max_size=200))
def test_a_rate_is_used_in_full(rate, pauses):
    limit, every = NodeLimit(rate=rate), slots.rates.interval(rate)
    now, at, total = 1000.0, None, 0
    for pause in pauses:
        now += pause
        had = slots.room(limit, 0, at, now, 10_000)
        at = slots.next_at(limit, had.earliest, had.tasks)
        total += had.tasks
    assert total >= int((now - 1000.0 - pauses[0]) / every)


# What is held


@pytest.fixture
def rows():
    return Rows(node_limits={"charge": BY_CUSTOMER, "mail": NodeLimit(rate="5/min")})


def held(rows: Rows, path: str) -> tuple[str, str | None, str | None]:
    task = rows.at(path)
    return task.status.value, task.held_for, task.slot


@pytest.mark.parametrize(
    ("item", "outputs", "slot"),
    [
        ("mail", {}, "mail"),
        ("charge", {"customer": 7}, "charge customer=7"),
        (Send("charge", {"customer": "own"}), {"customer": 7}, 'charge customer="own"'),
    ],
)
def test_a_task_of_a_limited_node_is_made_held(rows, item, outputs, slot):
    rows.start("a")
    changes = rows.report("0", [item], outputs)
    assert held(rows, "0.0") == ("held", "limit", slot)
    added = next(change.task for change in changes if isinstance(change, AddTask))
    assert limiting.touched(State(tasks={(added.run_id, added.id): added}), changes[1:2]) == {slot}


def test_so_are_the_first_one_and_what_goes_on_after_a_gather_or_a_wait(rows):
    first = rows.start("charge", "other", customer=1)
    assert (first.status, first.slot) == (TaskStatus.HELD, "charge customer=1")
    rows.start("a")
    rows.report("0", [Gather(["b"], then=Send("charge", {"customer": 2})), Wait("go", then="charge")], {"customer": 3})
    rows.report("0.0.0", [])
    assert held(rows, "0.0.then") == ("held", "limit", "charge customer=2")
    rows.command("signal", name="go")
    assert held(rows, "0.1.0") == ("held", "limit", "charge customer=3")


def test_a_delay_and_a_window_come_first(rows):
    rows.start("a")
    sends = [Send("mail", {"n": n}) for n in range(3)]
    rows.report("0", [Send("mail", delay=5), Gather(sends, then="b", max_concurrency=1)])
    assert held(rows, "0.0") == ("held", "delay", "mail")
    assert [held(rows, f"0.1.{n}")[1] for n in range(3)] == ["limit", "max_concurrency", "max_concurrency"]
    rows.tasks = {key: task._replace(status=TaskStatus.QUEUED, held_for=None) if task.path == "0.1.0" else task
                  for key, task in rows.tasks.items()}  # fmt: skip
    rows.report("0.1.0", [])
    assert held(rows, "0.1.1") == ("held", "limit", "mail")


def test_a_task_without_the_key_fails_and_says_so(rows):
    rows.start("a")
    rows.report("0", ["charge", "b"], {"order": 1})
    assert rows.runs["r"].status is RunStatus.FAILED
    assert rows.runs["r"].message.startswith("charge: MissingKey: node 'charge' is limited by the key 'customer'")


def test_a_branch_without_the_key_fails_in_its_turn(rows):
    """Earlier, its end would make room that it never took."""
    rows.start("a")
    sends = [Send("b", {}), *(Send("charge", {"order": n}) for n in range(2)), Send("charge", {"customer": 1}), "b"]
    rows.report("0", [Gather(sends, then="c", max_concurrency=1, return_exceptions=True)])
    assert [held(rows, f"0.0.{n}")[:2] for n in range(5)] == [("queued", None)] + [("held", "max_concurrency")] * 4
    rows.report("0.0.0")
    assert [rows.at(f"0.0.{n}").status.value for n in range(5)] == ["succeeded", "failed", "failed", "held", "held"]
    assert held(rows, "0.0.3") == ("held", "limit", "charge customer=1")
    assert held(rows, "0.0.4")[1] == "max_concurrency"


def test_a_paused_run_fails_such_a_branch_too(rows):
    rows.start("a")
    rows.report("0", [Gather(["b", "charge", "b"], then="c", max_concurrency=1, return_exceptions=True)])
    rows.command("pause")
    rows.report("0.0.0")
    assert rows.at("0.0.1").status is TaskStatus.FAILED
    assert held(rows, "0.0.2")[:2] == ("held", "paused")


def test_a_retry_looks_at_the_key_again(rows):
    rows.start("a")
    rows.report("0", ["charge"], {"order": 1})
    rows.command("retry")
    assert held(rows, "0.0") == ("held", "delay", None)
    assert rows.at("0.0").due == rows.now, "whoever releases what is due looks at its inputs"


def test_its_failure_is_handled_as_any_other(rows):
    rows.on_error["charge"] = "report"
    rows.start("a")
    rows.report("0", [Gather(["charge", "b"], then="c", return_exceptions=True)], {"order": 1})
    handler = rows.at("0.0.0.0")
    assert handler.node == "report"
    assert rows.inputs("0.0.0.0")["inputs"] == {"order": 1}


def test_a_run_that_goes_on_holds_its_tasks_in_their_slots_again(rows):
    rows.start("a")
    rows.report("0", ["mail", "b"])
    rows.command("pause")
    assert (held(rows, "0.0")[1], held(rows, "0.1")[1]) == ("paused", "paused")
    rows.command("resume")
    assert (held(rows, "0.0"), held(rows, "0.1")) == (("held", "limit", "mail"), ("queued", None, None))
    rows.fail("0.1")
    rows.command("retry")
    assert (held(rows, "0.0")[:2], held(rows, "0.1")[:2]) == (("held", "limit"), ("queued", None))


def let_out(rows: Rows, path: str) -> None:
    """Do what the store does for a slot that has room."""
    task = rows.at(path)
    rows.tasks[task.run_id, task.id] = task._replace(status=TaskStatus.QUEUED, held_for=None)


def test_a_pause_leaves_what_may_be_on_its_way_in_its_slot(rows):
    rows.start("a")
    rows.report("0", ["mail", "mail", "b"])
    let_out(rows, "0.0")
    rows.command("pause")
    assert [held(rows, f"0.{n}")[:2] for n in range(3)] == [("queued", None), ("held", "paused"), ("held", "paused")]
    rows.command("resume")
    assert [held(rows, f"0.{n}")[:2] for n in range(3)] == [("queued", None), ("held", "limit"), ("queued", None)]
    rows.report("0.0", attempt=1)
    assert rows.at("0.0").status is TaskStatus.SUCCEEDED
    assert rows.superseded == []


def test_what_comes_back_unbegun_from_a_paused_run_leaves_its_slot(rows):
    rows.start("a")
    rows.report("0", ["mail"])
    let_out(rows, "0.0")
    rows.command("pause")
    changes = rows.report("0.0", status="returned", attempt=1)
    assert held(rows, "0.0") == ("held", "paused", "mail")
    state = rows._load([])
    state.tasks.update(rows.tasks)
    assert limiting.touched(state, changes) == {"mail"}
    rows.report("0.0", attempt=1)
    assert [late.reason for late in rows.superseded] == ["attempt 1 is not the current one (2)"]
    rows.command("resume")
    assert held(rows, "0.0") == ("held", "limit", "mail")


@pytest.mark.parametrize(
    ("result", "ends"),
    [
        ({"status": "succeeded"}, ("succeeded", "limit", 1)),
        ({"status": "failed"}, ("failed", "limit", 1)),
        ({"status": "retry", "retry_in": 5}, ("held", "retry", 2)),
        ({"status": "returned"}, ("held", "limit", 2)),
        ({"status": "started", "started_at": 1000.0, "worker": "w"}, ("running", None, 1)),
    ],
)
def test_a_result_of_an_attempt_that_somebody_was_sent_counts_though_it_is_held_for_its_limit(rows, result, ends):
    """An older coordinator paused and resumed its run, or the store is a copy from before it was sent."""
    rows.start("a")
    rows.report("0", ["mail"])
    rows.report("0.0", attempt=1, **result)
    assert (*held(rows, "0.0")[:2], rows.at("0.0").attempt) == ends
    assert rows.superseded == []


def test_a_result_without_its_attempt_does_not(rows):
    rows.start("a")
    rows.report("0", ["mail"])
    rows.report("0.0")
    assert [late.reason for late in rows.superseded] == ["the task is held (limit), and nobody was sent this attempt"]


def test_a_task_that_is_given_back_keeps_its_place_and_one_that_is_retried_makes_room(rows):
    rows.start("a")
    rows.report("0", ["mail"])
    key = next(key for key, task in rows.tasks.items() if task.path == "0.0")
    rows.tasks[key] = rows.tasks[key]._replace(status=TaskStatus.QUEUED, held_for=None)
    rows.report("0.0", status="returned", attempt=1)
    assert held(rows, "0.0") == ("queued", None, "mail")
    changes = rows.report("0.0", status="retry", attempt=2, retry_in=5)
    assert held(rows, "0.0") == ("held", "retry", "mail")
    state = rows._load([])
    state.tasks.update(rows.tasks)
    assert limiting.touched(state, changes) == {"mail"}


def test_a_rerun_counts_where_its_new_inputs_say(rows):
    rows.start("charge", customer=1)
    key = next(iter(rows.tasks))
    rows.tasks[key] = rows.tasks[key]._replace(status=TaskStatus.QUEUED, held_for=None)
    rows.report("0", [])
    rows.command("rerun", input={"customer": 2}, new_run_id="again")
    assert rows.at("0", "again").slot == "charge customer=2"
    refused = rows.command("rerun", input={"order": 2}, new_run_id="wrong")
    assert any(
        "with these inputs: node 'charge' is limited by the key" in getattr(one, "reason", "") for one in refused
    )
    assert "wrong" not in rows.runs


def test_a_clock_that_is_set_back_holds_up_a_rate_for_one_interval():
    limit = NodeLimit(rate="100/s")
    had = slots.room(limit, 0, 1000.0 + 3600, 1000.0, 100)
    assert had.tasks == 0
    assert had.earliest == pytest.approx(1000.01)
    assert slots.room(limit, 0, had.earliest, 1000.02, 100).tasks > 0
