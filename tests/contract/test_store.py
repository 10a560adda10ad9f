"""One suite over every store: what ``flowkit.store.protocol`` promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from flowkit.errors import UsageError
from flowkit.flow import changes as c
from flowkit.flow import events as e
from flowkit.flow.state import Keys, Leaf, Run, RunStatus, Scope, ScopeStatus, TaskStatus
from flowkit.store import Store
from flowkit.store.protocol import DeadLetter, SentTask
from flowkit.store.views import NodeCount
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.contract.stores import NUL, ODD, Clock, attempts, begun, loaded, settled, task, write

# Rounds of events


async def test_what_was_written_is_loaded_without_payloads(store: Store) -> None:
    root, changes = begun("r")
    held = task("r", "0.1", scope="0", status=TaskStatus.HELD, held_for="delay", due=1060.0, inputs=None,
                inputs_from=root.id, attempt=2, tries=3)  # fmt: skip
    gather = Scope(run_id="r", path="0", parent="", outstanding=1, branches=4, opener=root.id, then=ODD,
                   return_exceptions=True)  # fmt: skip
    await write(store, [*changes, c.AddTask(held), c.AddScope(gather), c.CountTasks(run_id="r", tasks=2)])
    keys = Keys(frozenset({"r", "none"}), frozenset({"r"}), frozenset({("r", held.id), ("r", uuid4())}),
                frozenset({("r", "")}))  # fmt: skip
    state = await store.transact(lambda tx: tx.load(keys))
    assert state.runs == {"r": Run(id="r", node="add", started_at=1000.0, tasks=2, tags=b'{"k":"v"}')}
    assert state.inputs == {"r": b'{"a":1}'}
    assert state.tasks == {("r", held.id): held}  # its inputs are a reference, and loaded as one
    assert state.scopes == {("r", ""): Scope(run_id="r", path="", parent=None, outstanding=1), ("r", "0"): gather}
    assert (await loaded(store, root))[0] == root._replace(inputs=None)


async def test_a_row_may_be_added_and_changed_in_one_call(store: Store) -> None:
    root, changes = begun()
    started = c.MoveTask(run_id="r", task_id=root.id, status=TaskStatus.RUNNING, attempt=1, tries=1, sent_at=1001.0)
    await write(store, [
        *changes, started, settled(root, outputs=b'{"n":1}', leaf_of="", worker="w"),
        c.MoveScope(run_id="r", path="", outstanding=5, status=ScopeStatus.OPEN),
        c.MoveScope(run_id="r", path="", outstanding=0, status=ScopeStatus.CLOSED),
        c.EndRun(run_id="r", status=RunStatus.SUCCEEDED, ended_at=1002.0, outputs_from=root.id, message=NUL),
    ])  # fmt: skip
    [row] = await loaded(store, root)
    assert (row.status, row.leaf_of, row.worker, row.sent_at) == (TaskStatus.SUCCEEDED, "", "w", 1001.0)
    shown = await store.query(lambda q: q.run("r"))
    assert shown
    assert (shown.status, shown.inputs, shown.outputs, shown.message) == ("succeeded", b'{"a":1}', b'{"n":1}', NUL)
    [ended] = await store.transact(lambda tx: tx.ended(["none", "r"]))
    assert (ended.id, ended.status, ended.outputs, ended.message) == ("r", "succeeded", b'{"n":1}', NUL)


async def test_a_move_after_a_settlement_holds(store: Store) -> None:
    root, changes = begun()
    again = c.MoveTask(run_id="r", task_id=root.id, status=TaskStatus.QUEUED, attempt=2, tries=1)
    await write(store, [*changes, settled(root, TaskStatus.FAILED, outputs=None), again])
    [row] = await loaded(store, root)
    assert (row.status, row.attempt) == (TaskStatus.QUEUED, 2)
    assert len(await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9))) == 1


async def test_a_task_may_come_settled(store: Store) -> None:
    """The first task of a start with ``finished``."""
    _, changes = begun(status=TaskStatus.SUCCEEDED, outputs=b'{"n":2}', message=NUL, finished_at=1000.0)
    await write(store, changes)
    [shown] = await store.query(lambda q: q.tasks("r", payloads=True))
    assert (shown.status, shown.outputs, shown.message, shown.finished_at) == ("succeeded", b'{"n":2}', NUL, 1000.0)
    assert await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9)) == []


async def test_payloads_and_text_survive_as_they_are(store: Store) -> None:
    root, changes = begun(inputs=ODD)
    done = settled(root, TaskStatus.FAILED, outputs=ODD, nodes=ODD, error=ODD, message=NUL, worker=NUL)
    await write(store, [*changes, done, c.Supersede(run_id="r", task_id=root.id, attempt=None, status=NUL, reason=NUL,
                                                    at=1.5)])  # fmt: skip
    [shown] = await store.query(lambda q: q.tasks("r", payloads=True))
    assert (shown.inputs, shown.outputs, shown.error, shown.message, shown.worker) == (ODD, ODD, ODD, NUL, NUL)
    assert await store.query(lambda q: q.superseded("r")) == [(root.id, None, NUL, NUL, 1.5)]
    lone = settled(root, message="lone \ud800 surrogate")
    await write(store, [lone])
    assert (await store.query(lambda q: q.tasks("r")))[0].message == "lone \\ud800 surrogate"


async def test_what_raises_is_rolled_back(store: Store) -> None:
    _, changes = begun()

    def fail(tx: object) -> None:
        tx.write(changes)  # type: ignore[attr-defined]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await store.transact(fail)
    assert await store.query(lambda q: q.run("r")) is None
    await write(store, changes)
    assert await store.query(lambda q: q.run("r"))


# Effects


async def test_collect_finds_the_leaves_of_a_scope(store: Store) -> None:
    root, changes = begun()
    good, bad = task("r", "0.0", scope="0"), task("r", "0.1", scope="0")
    gather = Scope(run_id="r", path="0", parent="", opener=root.id)
    events = await write(store, [
        *changes, settled(root, outputs=b'{"k":1}'), c.AddTask(good), c.AddTask(bad), c.AddScope(gather),
        settled(good, outputs=b'{"n":1}', leaf_of="0", message="m"),
        settled(bad, TaskStatus.FAILED, outputs=None, error=b'{"type":"E"}'), c.MarkLeaf("r", bad.id, "0"),
        c.Collect("r", "0"), c.Collect("r", ""),
    ])  # fmt: skip
    collected, of_root = events
    assert isinstance(collected, e.Collected)
    assert collected.outputs == b'{"k":1}'
    assert sorted(collected.leaves, key=lambda leaf: leaf.path) == [
        Leaf("0.0", good.id, b'{"n":1}', None, "m"),
        Leaf("0.1", bad.id, None, b'{"type":"E"}', ""),
    ]
    assert of_root == e.Collected("r", "", b"{}", ())


async def test_cancel_below_takes_the_branch_and_nothing_else(store: Store) -> None:
    _, changes = begun(node="first")
    inside = [task("r", path, scope="0.1") for path in ("0.1.0", "0.1.2", "0.1.10.0")]
    deeper = task("r", "0.1.2.0", scope="0.1.2", status=TaskStatus.HELD, due=1.0, held_for="delay")
    outside = [task("r", path, scope="0") for path in ("0.10", "0.11", "0.2")]
    done = task("r", "0.1.3", scope="0.1")
    scopes = [Scope(run_id="r", path=path, parent=parent, outstanding=1)
              for path, parent in (("0.1", "0"), ("0.1.2", "0.1"), ("0.1.2.0", "0.1.2"), ("0.10", "0"))]  # fmt: skip
    events = await write(store, [
        *changes, *map(c.AddTask, [*inside, deeper, *outside, done]), *map(c.AddScope, scopes), settled(done),
        c.CancelBelow("r", "0.1", "0.1", 1005.0),
    ])  # fmt: skip
    assert events[0] == e.Cancelled("r", "0.1", 4)  # three tasks and one scope
    assert attempts(*events[1:]) == {(of.id, of.attempt) for of in inside}, (
        "workers may have them, and not the held one"
    )
    rows = {row.path: row for row in await store.query(lambda q: q.tasks("r"))}
    cancelled = {path for path, row in rows.items() if row.status == "cancelled"}
    assert cancelled == {"0.1.0", "0.1.2", "0.1.10.0", "0.1.2.0"}
    assert rows["0.1.2.0"].finished_at == 1005.0
    assert rows["0.1.3"].status == "succeeded"
    keys = frozenset(("r", scope.path) for scope in scopes)
    state = await store.transact(lambda tx: tx.load(Keys(frozenset(), frozenset(), frozenset(), keys)))
    assert {path for (_, path), scope in state.scopes.items() if scope.status is ScopeStatus.OPEN} == {"0.10"}
    assert await write(store, [c.CancelBelow("r", "", None, 1006.0)]) == []
    assert {row.status for row in await store.query(lambda q: q.tasks("r"))} == {"cancelled", "succeeded"}
    assert await store.transact(lambda tx: (tx.unsent(before=math.inf, limit=9), tx.release_due(1e9, 9, {}).tasks)) == (
        [],
        [],
    )


async def test_ten_thousand_branches(store: Store) -> None:
    root, changes = begun()
    branches = [task("r", f"0.{n}", scope="0", inputs=None, inputs_from=root.id) for n in range(10_000)]
    gather = Scope(run_id="r", path="0", parent="", outstanding=10_000, opener=root.id)
    await write(store, [*changes, settled(root), c.AddScope(gather), *map(c.AddTask, branches)])
    await write(store, [settled(branch, leaf_of="0") for branch in branches[:5_000]])
    collected, cancelled, *others = await write(store, [c.Collect("r", "0"), c.CancelBelow("r", "0", "0", 1.0)])
    assert isinstance(collected, e.Collected)
    assert len(collected.leaves) == 5_000
    assert cancelled == e.Cancelled("r", "0", 5_000)
    assert attempts(*others) == {(branch.id, branch.attempt) for branch in branches[5_000:]}
    assert [row.path for row in await store.query(lambda q: q.tasks("r"))][:4] == ["0", "0.0", "0.1", "0.2"]


# Sending


async def test_sendables_have_their_inputs(store: Store) -> None:
    root, changes = begun()
    second = task("r", "0.0", inputs=None, inputs_from=root.id, first_started_at=None)
    held = task("r", "0.1", status=TaskStatus.HELD)
    await write(store, [*changes, settled(root, outputs=ODD), c.AddTask(second), c.AddTask(held)])
    asked = [("r", uuid4()), ("r", second.id), ("r", root.id), ("r", held.id)]
    [sendable] = await store.transact(lambda tx: tx.sendables(asked))
    assert (sendable.task_id, sendable.node, sendable.attempt, sendable.inputs) == (second.id, "add", 1, ODD)


async def test_sendables_carry_the_trace_of_their_run(store: Store) -> None:
    root, changes = begun()
    traced = Run(id="r", node="add", started_at=1.0, traceparent=NUL)
    await write(store, [c.AddRun(traced), *changes[1:]])
    [sendable] = await store.transact(lambda tx: tx.sendables([("r", root.id)]))
    assert sendable.traceparent == NUL
    state = await store.transact(lambda tx: tx.load(Keys(frozenset({"r"}), frozenset(), frozenset(), frozenset())))
    assert state.runs["r"].traceparent == NUL


async def test_mark_sent_is_fenced_by_the_attempt(store: Store) -> None:
    root, changes = begun(attempt=2)
    await write(store, changes)
    await store.transact(lambda tx: tx.mark_sent([("r", root.id, 1)], 1001.0))
    assert (await loaded(store, root))[0].sent_at is None
    await store.transact(lambda tx: tx.mark_sent([("r", root.id, 2)], 1001.0))
    assert (await loaded(store, root))[0].sent_at == 1001.0
    assert await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9)) == []
    await write(store, [settled(root)])
    await store.transact(lambda tx: tx.mark_sent([("r", root.id, 2)], 1009.0))
    assert (await loaded(store, root))[0].sent_at == 1001.0


async def test_unsent_are_taken_once_for_a_while(store: Store, clock: Clock) -> None:
    root, changes = begun("r")
    _, paused = begun("p")
    paused[0] = c.AddRun(Run(id="p", node="add", started_at=1.0, status=RunStatus.PAUSED))
    await write(store, [*changes, *paused])
    assert await store.transact(lambda tx: tx.unsent(before=1000.0, limit=9)) == []
    clock.now = 1020.0
    [found] = await store.transact(lambda tx: tx.unsent(before=1010.0, limit=9))
    assert (found.run_id, found.task_id, found.inputs) == ("r", root.id, b'{"a":1}')
    assert await store.transact(lambda tx: tx.unsent(before=1010.0, limit=9)) == []
    assert len(await store.transact(lambda tx: tx.unsent(before=1021.0, limit=9))) == 1


async def test_unsent_tasks_of_one_node_or_without_some_keep_their_places_when_they_are_given_back(
    store: Store, clock: Clock
) -> None:
    for n, node in enumerate(["full", "add", "full", "full"]):
        _, changes = begun(f"r{n}", node=node, created_at=1000.0 + n)
        await write(store, changes)
    clock.now = 1100.0

    async def found(**which: object) -> list[str]:
        return [one.run_id for one in await store.transact(lambda tx: tx.unsent(before=1050.0, limit=9, **which))]

    first = await store.transact(lambda tx: tx.unsent(before=1050.0, limit=2, node="full"))
    assert [one.run_id for one in first] == ["r0", "r2"]
    assert await found(without=["full"]) == ["r1"]
    assert await found(node="full") == ["r3"], "the others are claimed"
    await store.transact(lambda tx: tx.mark_sent([first[1].mark], 1100.0))
    await store.transact(lambda tx: tx.restore_unsent(first))
    assert await found() == ["r0"], "what was sent meanwhile is not unsent again"


async def test_what_was_written_before_a_clock_was_set_back_is_looked_at_at_once(store: Store, clock: Clock) -> None:
    root, changes = begun()
    clock.now = 5000.0
    await write(store, changes)
    released = c.MoveTask(run_id="r", task_id=root.id, status=TaskStatus.QUEUED, attempt=1, tries=1)
    await write(store, [released])
    clock.now = 1400.0
    (unsent,) = await store.transact(lambda tx: tx.unsent(before=1390.0, limit=9))
    assert unsent.task_id == root.id
    assert await store.transact(lambda tx: tx.unsent(before=1390.0, limit=9)) == [], "it counts as unsent since now"
    await store.transact(lambda tx: tx.mark_sent([("r", root.id, 1)], 5000.0))
    (sent,) = await store.transact(lambda tx: tx.sent_before(1300.0, 9))
    assert (sent.task_id, sent.sent_at) == (root.id, 5000.0)
    clock.now = 4999.0
    assert await store.transact(lambda tx: tx.sent_before(1300.0, 9)) == []


async def test_due_tasks_are_released(store: Store) -> None:
    _, changes = begun(status=TaskStatus.HELD, held_for="retry", due=1030.0, attempt=2)
    late = task("r", "0.1", status=TaskStatus.HELD, held_for="delay", due=1020.0)
    await write(store, [*changes, c.AddTask(late), c.AddTask(task("r", "0.2", status=TaskStatus.HELD))])
    assert await store.transact(lambda tx: tx.release_due(1019.0, 9, {}).tasks) == []
    assert [t.task_id for t in await store.transact(lambda tx: tx.release_due(1040.0, 1, {}).tasks)] == [late.id]
    [released] = await store.transact(lambda tx: tx.release_due(1040.0, 9, {}).tasks)
    assert released.attempt == 2
    assert await store.transact(lambda tx: tx.release_due(1040.0, 9, {}).tasks) == []
    assert await store.transact(lambda tx: tx.unsent(before=1040.0, limit=9)) == []  # unsent since the release
    assert len(await store.transact(lambda tx: tx.unsent(before=1041.0, limit=9))) == 2
    [row] = await loaded(store, late)
    assert (row.status, row.held_for, row.due, row.sent_at) == (TaskStatus.QUEUED, None, None, None)


async def test_sent_tasks_are_sent_again_when_asked(store: Store) -> None:
    root, changes = begun()
    other, ended = task("r", "0.1"), task("r", "0.2")
    await write(store, [*changes, c.AddTask(other), c.AddTask(ended)])
    marks = [("r", t.id, 1) for t in (root, other, ended)]
    await store.transact(lambda tx: tx.mark_sent(marks[:1], 1002.0))
    await store.transact(lambda tx: tx.mark_sent(marks[1:], 1001.0))
    await write(store, [
        settled(ended),
        c.MoveTask(run_id="r", task_id=root.id, status=TaskStatus.RUNNING, attempt=1, tries=1, sent_at=1002.0),
    ])  # fmt: skip
    found = await store.transact(lambda tx: tx.sent_before(1003.0, 9))
    lost, running = SentTask("r", other.id, "add", 1, "", 1001.0), SentTask("r", root.id, "add", 1, "", 1002.0)
    assert found == sorted([lost, running], key=lambda one: one.task_id)
    assert await store.transact(lambda tx: tx.sent_before(1002.0, 9)) == [lost]
    later, next_attempt = replace(running, sent_at=1001.5), replace(running, attempt=2)
    gone = replace(lost, task_id=ended.id)
    assert await store.transact(lambda tx: tx.unsend([lost, later, next_attempt, gone])) == 1
    assert [t.task_id for t in await store.transact(lambda tx: tx.unsent(before=1.0, limit=9))] == [other.id]
    assert await store.transact(lambda tx: tx.unsend_all()) == 2, "also the one whose confirm nobody has written yet"
    assert (await loaded(store, root))[0].status is TaskStatus.QUEUED
    stranded = await store.transact(lambda tx: tx.unsent(before=1.0, limit=9))
    assert {t.task_id for t in stranded} == {root.id, other.id}


async def test_recount_corrects_open_scopes(store: Store) -> None:
    _, changes = begun(outstanding=3)  # it is one task and one scope
    gather = Scope(run_id="r", path="0.1", parent="", outstanding=1)
    closed = Scope(run_id="r", path="0.2", parent="", outstanding=7, status=ScopeStatus.CLOSED)
    await write(store, [*changes, c.AddScope(gather), c.AddScope(closed), c.AddTask(task("r", "0.1.0", scope="0.1"))])
    assert await store.transact(lambda tx: tx.recount()) == 1
    assert await store.transact(lambda tx: tx.recount()) == 0
    state = await store.transact(
        lambda tx: tx.load(Keys(frozenset(), frozenset(), frozenset(), frozenset({("r", ""), ("r", "0.2")})))
    )
    assert [state.scopes["r", path].outstanding for path in ("", "0.2")] == [2, 7]


async def test_open_scopes_of_runs_under_way_that_count_nothing_outstanding_are_drained(store: Store) -> None:
    for run_id in ("full", "long", "over"):
        root, changes = begun(run_id, outstanding=1)
        empty = Scope(run_id=run_id, path="0.1", parent="", outstanding=2)
        closed = Scope(run_id=run_id, path="0.2", parent="", outstanding=0, status=ScopeStatus.CLOSED)
        await write(store, [*changes, c.AddScope(empty), c.AddScope(closed)])
        if run_id != "full":
            await write(
                store, [settled(root), c.MoveScope(run_id=run_id, path="0.1", outstanding=0, status=ScopeStatus.OPEN)]
            )
    await write(
        store, [c.EndRun(run_id="over", status=RunStatus.FAILED, ended_at=1001.0), c.MoveRun("long", RunStatus.PAUSED)]
    )
    assert await store.transact(lambda tx: tx.drained(9)) == [e.Drained("long", "0.1")]
    await store.transact(lambda tx: tx.recount())
    assert await store.transact(lambda tx: tx.drained(9)) == [e.Drained("full", "0.1"), e.Drained("long", "0.1")]
    assert await store.transact(lambda tx: tx.drained(1)) == [e.Drained("full", "0.1")]


# Workers, dead letters, logs, facts


async def test_the_newest_announcement_of_a_worker_counts(store: Store) -> None:
    old, new = (wire.Worker(worker=NUL, version=version, stopping=version == "2") for version in ("1", "2"))
    await store.transact(lambda tx: tx.record_workers([wire.Worker(worker="z"), old], 1000.0))
    await store.transact(lambda tx: tx.record_workers([old, new], 1005.0))
    [row] = await store.query(lambda q: q.workers(seen_since=1001.0))
    assert (row.name, row.version, row.seen_at, row.stopping) == (NUL, "2", 1005.0, True)
    assert wire.decode(wire.Worker, row.announcement) == new
    assert len(await store.query(lambda q: q.workers(seen_since=1000.0))) == 2


async def test_dead_letters_are_kept_as_they_came(store: Store) -> None:
    first = DeadLetter("not-json", NUL, "flowkit.results", b"\x00\xff{", b"{}", 1.0)
    second = replace(first, run_id=NUL, reason=NUL)
    await store.transact(lambda tx: tx.add_dead([first, second]))
    await store.transact(lambda tx: tx.add_dead([]))
    newest = await store.query(lambda q: q.dead(limit=5))
    assert [replace(letter, id=None) for letter in newest] == [second, first]
    assert await store.query(lambda q: q.dead(limit=1)) == newest[:1]


async def test_dead_letters_are_listed_without_their_bodies(store: Store) -> None:
    reasons = ["a", NUL, "a"]
    letters = [DeadLetter(why, NUL, "q", b"\xc3\xa9" * n, b"{}", float(n), None) for n, why in enumerate(reasons, 1)]
    await store.transact(lambda tx: tx.add_dead(letters))
    listed = await store.query(lambda q: q.dead_rows())
    assert [(row.reason, row.size, row.at) for row in listed] == [("a", 6, 3.0), (NUL, 4, 2.0), ("a", 2, 1.0)]
    third, second, first = listed
    assert await store.query(lambda q: q.dead_rows(reason="a")) == [third, first]
    assert await store.query(lambda q: q.dead_rows(reason="a", limit=1)) == [third]
    assert await store.query(lambda q: q.dead_rows(ids=[first.id, second.id, 10**30])) == [second, first]
    assert await store.query(lambda q: q.dead_rows(ids=[])) == []
    assert await store.query(lambda q: [q.count_dead(reason) for reason in (None, "a", NUL, "b")]) == [3, 2, 1, 0]


async def test_log_lines_are_archived_once(store: Store) -> None:
    def line(seq: int | None, **fields: object) -> wire.Log:
        given = {"ts": 1000.0 + (seq or 0), "level": "info", "message": NUL, "worker": "w\x00", "seq": seq}
        return wire.Log(**(given | fields))

    lines = [line(n, run_id="r", node="add", context={"k": [NUL]}) for n in range(5)]
    assert await store.transact(lambda tx: tx.archive_offset()) is None
    await store.transact(lambda tx: tx.archive(lines[:3], 7))
    await store.transact(lambda tx: tx.archive([*lines[2:], lines[4]], 9))
    assert await store.transact(lambda tx: tx.archive_offset()) == 9
    assert await store.query(lambda q: q.logs(run_id="r")) == lines
    assert await store.query(lambda q: q.logs(limit=2)) == lines[3:]
    assert await store.query(lambda q: q.logs(since=1003.0, node="add")) == lines[3:]
    assert await store.query(lambda q: q.logs(node="other")) == []
    foreign = [line(None, worker=None), line(None, worker=None), line(2**63 - 1, ts=1.0), line(-(2**63), ts=1.0)]
    await store.transact(lambda tx: tx.archive(foreign, None))  # nothing to tell them apart by: all are kept
    assert await store.transact(lambda tx: tx.archive_offset()) is None
    assert len(await store.query(lambda q: q.logs())) == 9


async def test_one_archives_at_a_time(store: Store) -> None:
    claims = [("a", 1000.0), ("b", 1005.0), ("a", 1008.0), ("b", 1017.9), ("b", 1018.0), ("a", 1018.1)]
    answers = [await store.transact(lambda tx, w=who, n=now: tx.archive_claim(w, n, 10.0)) for who, now in claims]
    assert answers == [True, False, True, False, True, False]


async def test_a_claim_from_before_a_clock_was_set_back_does_not_count(store: Store) -> None:
    claims = [("a", 4600.0), ("b", 1000.0), ("a", 1005.0)]
    answers = [await store.transact(lambda tx, w=who, n=now: tx.archive_claim(w, n, 10.0)) for who, now in claims]
    assert answers == [True, True, False]


async def test_facts_about_the_store(store: Store) -> None:
    assert await store.transact(lambda tx: tx.meta("broker")) is None
    await store.transact(lambda tx: tx.set_meta("broker", "one"))
    await store.transact(lambda tx: tx.set_meta("broker", "two"))
    assert await store.transact(lambda tx: tx.meta("broker")) == "two"
    store_id, secret = await store.query(lambda q: (q.meta("id"), q.meta("secret")))
    assert UUID(store_id)
    assert len(bytes.fromhex(secret or "")) == 32


async def test_the_clock_is_the_one_that_was_passed_in(store: Store, clock: Clock) -> None:
    clock.now = 4711.5
    assert await store.transact(lambda tx: tx.now()) == 4711.5


# What people ask


async def test_pages_of_runs(store: Store) -> None:
    for n in range(7):
        run = Run(id=f"r_{n}", node=f"n{n % 2}", started_at=[5.25, 5.25, 5.25, 7.0, 7.0, 1.0, 9.0][n],
                  status=RunStatus.FAILED if n == 3 else RunStatus.RUNNING)  # fmt: skip
        await write(store, [c.AddRun(run)])
    pages, cursor = [], None
    while True:
        page, cursor = await store.query(lambda q, after=cursor: q.runs(limit=2, after=after))
        pages.append([run.id for run in page])
        if cursor is None:
            break
    assert pages == [["r_6", "r_4"], ["r_3", "r_2"], ["r_1", "r_0"], ["r_5"]]
    for filters, expected in (
        ({"status": "failed"}, ["r_3"]),
        ({"node": "n1", "since": 5.25}, ["r_3", "r_1"]),
    ):
        found, more = await store.query(lambda q, f=filters: q.runs(limit=9, **f))
        assert ([run.id for run in found], more) == (expected, None)
    assert await store.query(lambda q: q.run_counts()) == {"failed": 1, "running": 6}
    with pytest.raises(UsageError, match="cursor 'mine' is none of ours"):
        await store.query(lambda q: q.runs(limit=1, after="mine"))


async def test_runs_with_tags(store: Store) -> None:
    odd = {'quo"te\\': "é\u2028\x01", "tenant": "acme"}
    all_tags = [{"tenant": "acme"}, odd, {"tenant": "acme2"}, {'x"tenant': "acme"}, {}, {"a": "b", "tenant": "acme"}]
    for n, tags in enumerate(all_tags):
        run = Run(id=f"r_{n}", node="n", started_at=float(n), tags=codec.dumps(tags))
        await write(store, [c.AddRun(run)])
    for wanted, expected in (
        ({"tenant": "acme"}, ["r_5", "r_1", "r_0"]),
        ({"tenant": "acm"}, []),
        ({"tenant": "acme", "a": "b"}, ["r_5"]),
        (odd, ["r_1"]),
        ({'x"tenant': "acme"}, ["r_3"]),  # whose text has that of another tag in it
        ({}, [f"r_{n}" for n in reversed(range(6))]),
    ):
        pages, cursor = [], None
        while True:
            page, cursor = await store.query(lambda q, t=wanted, after=cursor: q.runs(limit=2, after=after, tags=t))
            pages += [run.id for run in page]
            if cursor is None:
                break
        assert pages == expected, wanted


async def test_tasks_come_in_the_order_of_their_paths(store: Store) -> None:
    root, changes = begun()
    paths = ["0", "0.0", "0.2", "0.2.then", "0.10", "0.10.0", "0.then", "0.then.0"]
    others = [task("r", path) for path in reversed(paths[1:])]
    others[0] = others[0]._replace(inputs=None, inputs_from=root.id)
    await write(store, [*changes, settled(root, outputs=b'{"x":1}'), *map(c.AddTask, others)])
    rows = await store.query(lambda q: q.tasks("r", payloads=True))
    assert [row.path for row in rows] == paths
    assert rows[-1].inputs == b'{"x":1}'
    assert [row.inputs for row in await store.query(lambda q: q.tasks("r"))] == [None] * 8
    assert await store.query(lambda q: q.tasks("none")) == []


async def test_nodes_with_outstanding_tasks(store: Store) -> None:
    _, changes = begun()
    statuses = [TaskStatus.HELD, TaskStatus.RUNNING, TaskStatus.QUEUED, TaskStatus.SUCCEEDED]
    more = [c.AddTask(task("r", f"0.{n}", node="b", status=status)) for n, status in enumerate(statuses)]
    await write(store, [*changes, *more])
    expected = [NodeCount("add", held=0, queued=1, running=0), NodeCount("b", held=1, queued=1, running=1)]
    assert await store.query(lambda q: q.nodes()) == expected
