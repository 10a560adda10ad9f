"""Loops that go on for years, and those that run away: what tells them apart, and what is kept of a long one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from flowkit.flow import paths
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus, ScopeStatus, Task, TaskStatus
from flowkit.flow.trimming import PastScope, PastTask, trim
from flowkit.wire.items import Gather, Send, Wait
from tests.flow.rows import Rows

SMALL = Limits(max_depth=50, max_history=30, max_tasks=1_000)
ROUNDS = 70
Play = Callable[[Rows, Task], None]


def returning(*items: object) -> Play:
    return lambda rows, task: rows.report(task.path, list(items), {"n": 1}) and None


def failing(rows: Rows, task: Task) -> None:
    rows.fail(task.path)


later = Send("poll", delay=5)
LOOPS: dict[str, dict[str, Play]] = {
    "a delay": {"poll": returning(later)},
    "a delay, beside a run of its own": {"poll": returning(Send("work", detached=True), later)},
    "a Gather in each round": {
        "poll": returning(Gather(["work", Send("work", delay=5)], then="poll")),
        "work": returning(),
    },
    "a Gather of one at a time in each round": {
        "poll": returning(Gather(["work"] * 3, then="next", max_concurrency=1)),
        "work": returning(),
        "next": returning(later),
    },
    "a Gather of nothing in each round": {"poll": returning(Gather([], then=later))},
    "a Gather with failures in each round": {
        "poll": returning(Gather(["work", "bad"], then="next", return_exceptions=True)),
        "work": returning(),
        "bad": failing,
        "next": returning(later),
    },
    "a handler in each round": {"poll": failing, "mend": returning(later)},
    "a wait in each round": {"poll": returning(Wait("go", then="poll", timeout=5, on_timeout="poll"))},
    "two nodes in turn": {"poll": returning("other"), "other": returning(later)},
    "two loops": {"poll": returning(later) , "begin": returning("poll", "poll")},
    "a loop in a branch": {"begin": returning(Gather(["poll", "poll"], then="end")), "poll": returning(later)},
    "a loop in a branch of one at a time": {
        "begin": returning(Gather(["poll", "poll"], then="end", max_concurrency=1)),
        "poll": returning(later),
    },
}  # fmt: skip


def begun(loop: dict[str, Play], limits: Limits = SMALL) -> Rows:
    rows = Rows(limits=limits, on_error={"poll": "mend"} if "mend" in loop else {})
    rows.start("begin" if "begin" in loop else "poll", x=1)
    return rows


def play(rows: Rows, loop: dict[str, Play]) -> None:
    """One round: all that can run does, then five seconds pass."""
    for _ in range(10):
        ready = [task for task in rows.tasks.values() if task.run_id == "r" and task.status is TaskStatus.QUEUED]
        for task in ready:
            if rows.tasks["r", task.id].status.outstanding:
                loop[task.node](rows, task)
    rows.pass_time(5)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_takes_time_goes_on_and_stays_small(name: str) -> None:
    loop = LOOPS[name]
    rows = begun(loop)
    for _ in range(ROUNDS):
        play(rows, loop)
    assert rows.runs["r"].status is RunStatus.RUNNING, rows.runs["r"].message
    kept = [task for task in rows.tasks.values() if task.run_id == "r"]
    assert rows.runs["r"].tasks + rows.runs["r"].trimmed > ROUNDS
    assert len(kept) < 90, "twice what is to be kept, and what is under way"
    assert max(len(task.path) for task in kept) < 150
    assert max(len(task.unfolded or "") for task in kept) < 200
    rows.command("cancel")


@pytest.mark.parametrize("name", ["a delay", "a Gather in each round", "a loop in a branch"])
def test_one_that_runs_away_later_is_stopped_at_once(name: str) -> None:
    loop = LOOPS[name]
    rows = begun(loop)
    for _ in range(ROUNDS):
        play(rows, loop)
    steps = 0
    while rows.runs["r"].status is RunStatus.RUNNING and steps < 200:
        for path in rows.outstanding():
            if rows.runs["r"].status is RunStatus.RUNNING and rows.at(path).status is TaskStatus.QUEUED:
                rows.report(path, ["poll"])
        if all(rows.at(path).status is TaskStatus.HELD for path in rows.outstanding()):
            rows.pass_time(5)
        steps += 1
    assert rows.runs["r"].status is RunStatus.FAILED
    assert "max_depth" in rows.runs["r"].message
    assert steps < 60


@pytest.mark.parametrize(("pause", "goes_on"), [(0.0, False), (0.02, False), (0.05, False), (0.1, True), (1.0, True)])
def test_ten_steps_a_second_are_what_a_loop_may_make_for_ever(pause: float, goes_on: bool) -> None:
    rows = begun({}, Limits(max_depth=50, max_history=50))
    for _ in range(200):
        if rows.runs["r"].status is RunStatus.RUNNING:
            rows.now += pause
            rows.report(rows.outstanding()[0], ["poll"])
    assert (rows.runs["r"].status is RunStatus.RUNNING) == goes_on


def test_a_clock_that_is_set_back_takes_nothing_off() -> None:
    rows = begun({})
    for _ in range(60):
        if rows.runs["r"].status is RunStatus.RUNNING:
            rows.now -= 100
            rows.report(rows.outstanding()[0], ["poll"])
    assert "max_depth" in rows.runs["r"].message


def test_values_of_the_run_are_never_removed_and_count() -> None:
    loop = {"poll": returning("work", later), "work": returning()}
    rows = begun(loop, Limits(max_history=20, max_tasks=60))
    while rows.runs["r"].status is RunStatus.RUNNING:
        play(rows, loop)
    assert sum(task.leaf_of == "" for task in rows.tasks.values()) > 35
    assert "max_tasks: the run would have 61 tasks, the limit is 60. A loop keeps" in rows.runs["r"].message


def test_gathers_in_gathers_are_no_loop_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MOST", 200)
    rows = begun({})
    while rows.runs["r"].status is RunStatus.RUNNING:
        rows.now += 3600
        rows.report(rows.outstanding()[-1], [Gather(["poll"], then="end")])
    assert "max_depth" in rows.runs["r"].message
    assert max(len(path) for _, path in rows.scopes) < 210


# What is kept of a long loop goes on as before


def looped(loop: dict[str, Play]) -> Rows:
    rows = begun(loop)
    for _ in range(ROUNDS):
        play(rows, loop)
    assert rows.runs["r"].trimmed > 0
    return rows


def test_a_loop_that_was_trimmed_fails_and_is_retried() -> None:
    rows = looped(LOOPS["a delay"])
    (path,) = rows.outstanding()
    rows.fail(path)
    rows.command("retry")
    assert (rows.outstanding(), rows.at(path).attempt) == ([path], 2)
    rows.report(path, [], {"done": True})
    assert rows.outputs() == {"done": True}


def test_failures_that_were_handled_are_not_tried_again_when_their_handlers_are_gone() -> None:
    rows = looped(LOOPS["a handler in each round"])
    (path,) = rows.outstanding()
    rows.on_error.clear()
    rows.pass_time(5)
    rows.fail(path)
    rows.command("retry")
    assert rows.outstanding() == [path]


@pytest.mark.parametrize("name", ["a delay", "a Gather with failures in each round", "two loops", "a loop in a branch"])
@pytest.mark.parametrize("back", [0, 1, 5])
def test_a_rerun_from_what_is_kept(name: str, back: int) -> None:
    rows = looped(LOOPS[name])
    rows.command("cancel")
    newest = sorted((task for task in rows.tasks.values() if task.node == "poll"), key=lambda task: task.created_at)
    task = newest[-1 - back]
    rows.command("rerun", task_id=task.id, new_run_id="new")
    assert rows.runs["new"].status is RunStatus.RUNNING
    assert task.path in rows.outstanding("new")
    later_ones = [one.path for one in rows.tasks.values() if one.run_id == "new" and one.unfolded and not one.sent_at]
    assert len(later_ones) < len(newest)
    rows.command("cancel", run="new")


def test_a_rerun_from_the_beginning_copies_nothing_else() -> None:
    rows = looped(LOOPS["a delay"])
    rows.command("cancel")
    rows.command("rerun", new_run_id="new")
    assert [task.path for task in rows.tasks.values() if task.run_id == "new"] == ["0"]
    assert rows.inputs("0", "new") == {"x": 1}


def test_a_rerun_from_what_was_removed_is_refused() -> None:
    rows = begun(LOOPS["a delay"])
    for _ in range(10):
        play(rows, LOOPS["a delay"])
    gone = rows.at("0.0.0").id
    for _ in range(ROUNDS):
        play(rows, LOOPS["a delay"])
    rows.command("cancel")
    changes = rows.command("rerun", task_id=gone, new_run_id="new")
    (why,) = [change.reason for change in changes if type(change).__name__ == "RefuseCommand"]
    assert "it has no such task; " in why
    assert "of its oldest tasks were removed while it ran (max_history)" in why


def test_a_rerun_from_a_task_that_followers_of_were_removed_is_refused() -> None:
    loop = LOOPS["a loop in a branch"]
    rows = looped(loop)
    opener = rows.at("0")
    assert opener.created_at < (rows.runs["r"].trimmed_before or 0)
    rows.command("cancel")
    (value, *_) = [task for task in rows.tasks.values() if task.created_at < (rows.runs["r"].trimmed_before or 0)]
    assert value.path == "0", "the first task, from which a rerun copies nothing"


# The rule itself


def ids() -> Iterator[UUID]:
    number = 0
    while True:
        number += 1
        yield UUID(int=number)


def test_only_what_nothing_refers_to_is_removed() -> None:
    given = ids()
    root, opener, leaf, failed, handled, past, newest = (next(given) for _ in range(7))
    done, bad, closed_opener, branch, then = (next(given) for _ in range(5))

    def task(task_id: UUID, path: str, at: float, status: str = "succeeded", scope: str = "", **more) -> PastTask:
        fields = {"leaf_of": None, "inputs_from": None, "handled": False} | more
        return PastTask(task_id, path, scope, TaskStatus(status), at, **fields)

    tasks = [
        task(root, "0", 1),
        task(opener, "0.0", 2),
        task(leaf, "0.1", 3, leaf_of=""),
        task(failed, "0.2", 4, "failed"),
        task(handled, "0.3", 5, "failed", handled=True),
        task(past, "0.4", 6),
        task(done, "0.0.0.0", 7, scope="0.0.0", leaf_of="0.0.0"),
        task(bad, "0.0.0.1", 8, "failed", scope="0.0.0", leaf_of="0.0.0"),
        task(closed_opener, "0.5", 9),
        task(branch, "0.5.0.0", 10, scope="0.5.0", leaf_of="0.5.0"),
        task(then, "0.5.0.then", 11, inputs_from=None),
        task(newest, "0.4.0", 20, "queued", inputs_from=past),
    ]
    scopes = [
        PastScope("", None, ScopeStatus.OPEN, None),
        PastScope("0.0.0", "", ScopeStatus.OPEN, opener),
        PastScope("0.5.0", "", ScopeStatus.CLOSED, closed_opener),
    ]
    gone = trim(tasks, scopes, keep=1)
    assert gone is not None
    assert gone.tasks == {handled, past, closed_opener, branch, then}
    assert (gone.scopes, gone.inherit, gone.before) == ({"0.5.0"}, {newest}, 20)
    assert trim(tasks, scopes, keep=12) is None


# Paths


def test_a_path_is_folded_within_its_scope_only() -> None:
    long = "0" + ".0" * (paths.LONGEST - 1)
    assert paths.fold(long, "") == long
    folded = paths.fold(f"{long}.7", "")
    assert folded.startswith("0+1-")
    assert paths.fold(f"{long}.7", "") == folded != paths.fold(f"{long}.8", "")
    again = paths.fold(folded + ".0" * paths.LONGEST, "")
    assert again.startswith("0+2-")
    inside = paths.fold(f"{long}.3.12" + ".0" * paths.LONGEST, f"{long}.3")
    assert inside.startswith(f"{long}.3.12+1-")
    assert paths.branch(f"{long}.3", inside) == 12
    assert paths.is_below(inside, f"{long}.3.12")
    assert not paths.is_below(inside, f"{long}.3.1")
    assert sorted([again, folded, f"{folded}.0", "1", "0.then", long], key=paths.order) == [
        long, "0.then", folded, f"{folded}.0", again, "1",
    ]  # fmt: skip
