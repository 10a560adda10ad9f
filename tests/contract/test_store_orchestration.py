"""Waits, signals, commands, timers, and runs that are held, failed in part, opened again or removed."""

from __future__ import annotations

import math
from dataclasses import replace
from uuid import uuid4

from flowkit.flow import changes as c
from flowkit.flow import events as e
from flowkit.flow.state import Run, RunStatus, Scope, ScopeStatus, Signal, Task, TaskStatus
from flowkit.store import Store
from flowkit.store.protocol import DeadLetter
from flowkit.store.views import CommandRow, NodeCount, SignalRow, TaskRow
from flowkit.wire import messages as wire
from tests.contract.stores import NUL, ODD, Clock, attempts, begun, load, loaded, settled, task, write

ERROR = b'{"type":"E","message":"","node":"add"}'


def wait(run_id: str, path: str, name: str = NUL, **fields: object) -> Task:
    return task(run_id, path, status=TaskStatus.WAITING, wait=b'{"name":"ok"}', signal=name, **fields)


def failed(of: Task, **fields: object) -> c.SettleTask:
    return settled(of, TaskStatus.FAILED, outputs=None, error=ERROR, **fields)


def branches(*paths: str, scope: str = "0.0", **fields: object) -> list[Task]:
    return [task("r", path, scope=scope, **fields) for path in paths]


async def shown(store: Store, run_id: str = "r") -> dict[str, TaskRow]:
    return {row.path: row for row in await store.query(lambda q: q.tasks(run_id, payloads=True))}


async def statuses(store: Store, run_id: str = "r") -> dict[str, str]:
    return {path: row.status for path, row in (await shown(store, run_id)).items()}


async def scopes(store: Store, *paths: str) -> dict[str, tuple[str, int]]:
    state = await load(store, scopes=frozenset(("r", path) for path in paths))
    return {path: (state.scopes["r", path].status.value, state.scopes["r", path].outstanding) for path in paths}


async def expired(store: Store, now: float, limit: int = 9) -> list[e.Event]:
    return await store.transact(lambda tx: tx.expired(now, limit))


# Waits, signals, commands


async def test_waits_are_found_by_the_signal_they_wait_for(store: Store) -> None:
    root, changes = begun()
    late, early, other = wait("r", "0.10"), wait("r", "0.2"), wait("r", "0.3", "other")
    first = wait("r", "0.11", created_at=999.0, scope="0.1", due=1060.0)
    done = wait("r", "0.4")
    gather = Scope(run_id="r", path="0.1", parent="", opener=root.id, due=1070.0)
    await write(
        store, [*changes, c.AddScope(gather), *map(c.AddTask, (late, early, other, first, done)), settled(done)]
    )
    state = await load(store, waits=frozenset({("r", NUL), ("r", "nobody"), ("none", NUL)}))
    assert state.waits == {("r", NUL): [first.id, early.id, late.id]}
    assert state.tasks["r", first.id] == first._replace(inputs=None)
    assert state.scopes["r", "0.1"] == gather
    assert ("r", other.id) not in state.tasks
    row = (await shown(store))["0.11"]
    assert (row.status, row.signal, row.due, row.handler, row.deaths) == ("waiting", NUL, 1060.0, False, 0)
    counted = await store.query(lambda q: q.nodes())
    assert counted == [NodeCount("add", held=0, queued=1, running=0)]  # the first task alone


async def test_resolved_inputs_and_who_handles_failures(store: Store) -> None:
    root, changes = begun(node="a")
    child = task("r", "0.0", node="b", inputs=None, inputs_from=root.id, handler=True, deaths=2)
    await write(store, [*changes, settled(root, outputs=ODD), c.AddTask(child)])
    nodes = tuple(wire.NodeInfo(name=name, on_error=other) for name, other in (("a", "mend"), ("b", None), ("c", "d")))
    await store.transact(lambda tx: tx.record_workers([wire.Worker(worker="w", nodes=nodes)], 1000.0))
    state = await load(store, payloads=frozenset({("r", root.id), ("r", child.id), ("r", uuid4())}))
    assert state.payloads == {("r", root.id): b'{"a":1}', ("r", child.id): ODD}
    assert state.on_error == {"a": "mend"}
    [row] = await loaded(store, child)
    assert (row.handler, row.deaths) == (True, 2)
    died = c.MoveTask(run_id="r", task_id=child.id, status=TaskStatus.RUNNING, attempt=1, tries=1, deaths=3)
    await write(store, [died])
    assert (await shown(store))["0.0"].deaths == 3


async def test_signals_are_kept_in_order_until_they_are_taken(store: Store) -> None:
    _, changes = begun()
    kept = [Signal(uuid4(), ODD) for _ in range(5)]
    await write(store, [*changes, *(c.AddSignal("r", NUL, signal, 1000.0) for signal in kept[:3])])
    await write(store, [c.AddSignal("r", NUL, kept[3], 1001.0), c.AddSignal("r", "b", kept[4], 1001.0)])
    names = frozenset({("r", NUL), ("r", "b"), ("r", "c"), ("none", NUL)})
    assert (await load(store, signals=names)).signals == {("r", NUL): kept[:4], ("r", "b"): kept[4:]}
    there, just_came = uuid4(), uuid4()
    await write(store, [c.TakeSignal("r", NUL, kept[0].id, there), c.TakeSignal("r", NUL, uuid4(), just_came)])
    assert (await load(store, signals=names)).signals["r", NUL] == kept[1:4]
    assert await store.query(lambda q: q.signals("r")) == [
        *(SignalRow(signal.id, NUL, ODD, 1000.0) for signal in kept[1:3]),
        SignalRow(kept[3].id, NUL, ODD, 1001.0),
        SignalRow(kept[4].id, "b", ODD, 1001.0),
    ]


async def test_signals_are_kept_until_the_run_ends(store: Store) -> None:
    for run_id in ("r", "s"):
        await write(store, [*begun(run_id)[1], c.AddSignal(run_id, "ok", Signal(uuid4(), b"{}"), 1000.0)])
    await write(store, [c.EndRun(run_id="r", status=RunStatus.SUCCEEDED, ended_at=1001.0)])
    assert await store.query(lambda q: q.signals("r")) == []
    assert len(await store.query(lambda q: q.signals("s"))) == 1


async def test_commands_are_known_by_their_ids(store: Store) -> None:
    _, changes = begun()
    ids = [uuid4(), uuid4(), uuid4()]
    noted = [c.NoteCommand("r", ids[0], "pause", 2.0), c.NoteCommand("r", ids[1], "resume", 1.0)]
    await write(store, [*changes, *noted])
    assert (await load(store, commands=frozenset(ids))).commands == set(ids[:2])
    assert await store.query(lambda q: q.commands("r")) == [
        CommandRow(ids[1], "resume", 1.0),
        CommandRow(ids[0], "pause", 2.0),
    ]


# Timers


async def test_what_has_expired_ends_once(store: Store) -> None:
    root, changes = begun("r", outstanding=3)
    waiting, patient = wait("r", "0.1", due=1010.0), wait("r", "0.2", due=1050.0)
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=1, due=1020.0)
    drained = Scope(run_id="r", path="0.3", parent="", opener=root.id, outstanding=0, due=1005.0)
    await write(store, [*changes, c.AddScope(gather), c.AddScope(drained), c.AddTask(waiting), c.AddTask(patient)])
    limited = Run(id="d", node="add", started_at=1000.0, deadline=1015.0)
    await write(store, [c.AddRun(limited), c.AddRun(limited._replace(id="p", status=RunStatus.PAUSED))])
    assert await expired(store, 1009.9) == []
    assert await expired(store, 1010.0) == [e.WaitExpired("r", waiting.id)]
    every = [e.RunExpired("d"), e.RunExpired("p"), e.ScopeExpired("r", "0.0"), e.WaitExpired("r", waiting.id)]
    assert await expired(store, 1030.0) == every
    assert await expired(store, 1030.0, 2) == every[:2]
    await write(store, [
        failed(waiting), *(c.EndRun(run_id=run, status=RunStatus.FAILED, ended_at=1030.0) for run in ("d", "p")),
        c.MoveScope(run_id="r", path="0.0", outstanding=0, status=ScopeStatus.FAILED),
    ])  # fmt: skip
    assert await expired(store, 1030.0) == []
    await write(store, [c.MoveRun("r", RunStatus.PAUSED)])
    assert await expired(store, 1060.0) == []
    await write(store, [c.MoveRun("r", RunStatus.RUNNING)])
    assert await expired(store, 1060.0) == [e.WaitExpired("r", patient.id)]


async def test_a_cancelled_wait_expires_no_more(store: Store) -> None:
    _, changes = begun()
    await write(store, [*changes, c.AddTask(wait("r", "0.0", due=1010.0)), c.CancelBelow("r", "0.0", "", 1001.0)])
    assert await expired(store, 1e9) == []


async def test_what_is_outstanding_in_a_scope_fails(store: Store) -> None:
    """A Gather with a timeout: one branch is done, one is in the middle of it, one went on with a Gather of its own."""
    root, changes = begun(outstanding=1)
    done, running, held, opener = branches("0.0.0", "0.0.1", "0.0.2", "0.0.3")
    held = held._replace(status=TaskStatus.HELD, held_for="retry", due=1500.0)
    inner = Scope(run_id="r", path="0.0.3.0", parent="0.0", opener=opener.id, outstanding=1)
    below, deep = branches("0.0.3.0.0", scope="0.0.3.0")[0], wait("r", "0.0.3.0.0.0", scope="0.0.3.0")
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=3, return_exceptions=True)
    outside = task("r", "0.1")
    events = await write(store, [
        *changes, settled(root), c.AddScope(gather), c.AddScope(inner),
        *map(c.AddTask, (done, running, held, opener, below, deep, outside)),
        settled(done, leaf_of="0.0"), settled(opener, outputs=b'{"n":1}', nodes=b"[]"),
        c.FailOutstanding("r", "0.0", ERROR, 1020.0),
    ])  # fmt: skip
    assert events[0] == e.Cancelled("r", "0.0", 3)
    assert attempts(*events[1:]) == {(of.id, of.attempt) for of in (running, below)}, "workers may have these two"
    [collected] = await write(store, [c.Collect("r", "0.0")])
    assert isinstance(collected, e.Collected)
    assert {leaf.path: leaf.error for leaf in collected.leaves} == {
        "0.0.0": None, "0.0.1": ERROR, "0.0.2": ERROR, "0.0.3": ERROR,
    }  # fmt: skip
    assert await statuses(store) == {
        "0": "succeeded", "0.1": "queued", "0.0.0": "succeeded", "0.0.1": "failed", "0.0.2": "failed",
        "0.0.3": "failed", "0.0.3.0.0": "cancelled", "0.0.3.0.0.0": "cancelled",
    }  # fmt: skip
    assert await scopes(store, "0.0", "0.0.3.0") == {"0.0": ("open", 3), "0.0.3.0": ("cancelled", 0)}
    assert await store.transact(lambda tx: tx.release_due(1e9, 9, {}).tasks) == []
    assert [t.task_id for t in await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9))] == [outside.id]


# Paused runs


async def test_a_paused_run_sends_nothing_until_it_goes_on(store: Store) -> None:
    root, changes = begun()
    sent, held, delayed = task("r", "0.0"), task("r", "0.1"), task("r", "0.2", status=TaskStatus.HELD)
    delayed = delayed._replace(held_for="delay", due=1010.0)
    await write(store, [*changes, *map(c.AddTask, (sent, held, delayed))])
    await store.transact(lambda tx: tx.mark_sent([("r", sent.id, 1)], 1001.0))
    assert await write(store, [c.MoveRun("r", RunStatus.PAUSED), c.HoldUnsent("r", "paused")]) == []
    rows = await shown(store)
    assert {path: (row.status, row.held_for) for path, row in rows.items()} == {
        "0": ("held", "paused"), "0.0": ("queued", None), "0.1": ("held", "paused"), "0.2": ("held", "delay"),
    }  # fmt: skip
    assert await store.transact(lambda tx: (tx.unsent(before=math.inf, limit=9), tx.release_due(1e9, 9, {}).tasks)) == (
        [],
        [],
    )
    assert (await load(store, runs=frozenset({"r"}))).runs["r"].status is RunStatus.PAUSED
    await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Unhold("r", "paused")])
    found = await store.transact(lambda tx: tx.unsent(before=1.0, limit=9))  # at once
    assert {one.task_id for one in found} == {root.id, held.id}
    assert [one.task_id for one in await store.transact(lambda tx: tx.release_due(1010.0, 9, {}).tasks)] == [delayed.id]


# Runs that failed go on


async def fail(store: Store, of: Task) -> None:
    """What the failure of a task does to its run."""
    await write(store, [
        failed(of), c.EndRun(run_id="r", status=RunStatus.FAILED, ended_at=1100.0, message="E", error=ERROR),
        c.CancelBelow("r", "", None, 1100.0),
    ])  # fmt: skip


async def reopen(store: Store, at: float = 1200.0) -> list[e.Event]:
    return await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Reopen("r", at)])


async def test_what_failed_and_what_was_cancelled_with_it_comes_again(store: Store) -> None:
    root, changes = begun(outstanding=1)
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=3, due=1150.0)
    done, culprit, running, held = branches("0.0.0", "0.0.1", "0.0.2", "0.0.3", attempt=3, tries=2)
    held = held._replace(status=TaskStatus.HELD, held_for="delay", due=5000.0)
    await write(store, [
        *changes, settled(root), c.AddScope(gather), *map(c.AddTask, (done, culprit, running, held)),
        settled(done, leaf_of="0.0"),
        c.MoveTask(run_id="r", task_id=running.id, status=TaskStatus.RUNNING, attempt=3, tries=2, sent_at=1001.0,
                   first_started_at=1001.0, started_at=1001.0, worker="w", deaths=1),
    ])  # fmt: skip
    await fail(store, culprit)
    assert await scopes(store, "", "0.0") == {"": ("cancelled", 0), "0.0": ("cancelled", 0)}
    assert await reopen(store) == []
    rows = await shown(store)
    assert {path: (row.status, row.attempt, row.tries) for path, row in rows.items()} == {
        "0": ("succeeded", 1, 1), "0.0.0": ("succeeded", 3, 2),
        "0.0.1": ("queued", 4, 1), "0.0.2": ("queued", 4, 1), "0.0.3": ("held", 4, 1),
    }  # fmt: skip
    for path, held_for in (("0.0.1", (None, None)), ("0.0.2", (None, None)), ("0.0.3", ("delay", 5000.0))):
        row = rows[path]
        assert (row.held_for, row.due) == held_for, "what was delayed is neither early nor late"
        assert (row.error, row.worker, row.sent_at, row.deaths) == (None, None, None, 0)
        assert (row.first_started_at, row.started_at, row.finished_at) == (None, None, None)
    assert await scopes(store, "", "0.0") == {"": ("open", 1), "0.0": ("open", 3)}
    assert (await load(store, scopes=frozenset({("r", "0.0")}))).scopes["r", "0.0"].due is None  # it has passed
    assert len(await store.transact(lambda tx: tx.unsent(before=1.0, limit=9))) == 2
    run = await store.query(lambda q: q.run("r"))
    assert run
    assert (run.status, run.ended_at, run.message, run.error, run.outputs) == ("running", None, "", None, None)
    assert await store.transact(lambda tx: tx.ended(["r"])) == []
    assert await store.transact(lambda tx: tx.recount()) == 0


async def test_waits_wait_again(store: Store) -> None:
    root, changes = begun()
    passed, patient, endless = wait("r", "0.0", due=1150.0), wait("r", "0.1", due=1300.0), wait("r", "0.2")
    timed_out = wait("r", "0.3", due=1090.0)
    await write(store, [*changes, settled(root), *map(c.AddTask, (passed, patient, endless, timed_out))])
    await fail(store, timed_out)
    assert await expired(store, 1e9) == []
    await reopen(store)
    rows = await shown(store)
    assert {path: (row.status, row.due, row.attempt) for path, row in rows.items() if path != "0"} == {
        "0.0": ("waiting", None, 1), "0.1": ("waiting", 1300.0, 1), "0.2": ("waiting", None, 1),
        "0.3": ("waiting", None, 1),
    }  # fmt: skip
    assert await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9)) == []
    assert await expired(store, 1e9) == [e.WaitExpired("r", patient.id)]


async def test_a_deadline_that_has_passed_is_forgotten(store: Store) -> None:
    root, changes = begun()
    changes[0] = c.AddRun(Run(id="r", node="add", started_at=1000.0, deadline=1100.0))
    await write(store, changes)
    await fail(store, root)
    await reopen(store)
    assert await expired(store, 1e9) == []


async def test_a_deadline_brings_what_was_being_handled(store: Store) -> None:
    root, changes = begun()
    changes[0] = c.AddRun(Run(id="r", node="add", started_at=1000.0, deadline=1100.0))
    handler = task("r", "0.0", node="mend", handler=True, inputs=b'{"error":{"type":"OSError"}}')
    await write(store, [*changes, failed(root), c.AddTask(handler)])
    assert await expired(store, 1e9) == [e.RunExpired("r", b'{"error":{"type":"OSError"}}')]
    await write(store, [settled(handler)])
    assert await expired(store, 1e9) == [e.RunExpired("r")]


async def test_failures_that_were_handled_stay(store: Store) -> None:
    root, changes = begun()
    handler = task("r", "0.0", node="mend", handler=True)
    await write(store, [*changes, failed(root), c.AddTask(handler)])
    await fail(store, handler)
    await reopen(store)
    assert await statuses(store) == {"0": "failed", "0.0": "queued"}
    assert await scopes(store, "") == {"": ("open", 1)}


async def test_failures_that_are_values_stay_with_all_that_was_cancelled_for_them(store: Store) -> None:
    """The first branch failed in a Gather of its own, the second by itself, the third by its Gather's timeout."""
    root, changes = begun(outstanding=2)
    outer = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=5, return_exceptions=True)
    openers = branches("0.0.0", "0.0.2")
    inner = [
        Scope(run_id="r", path=f"{opener.path}.0", parent="0.0", opener=opener.id, outstanding=2) for opener in openers
    ]
    culprit, beside = branches("0.0.0.0.0", "0.0.0.0.1", scope="0.0.0.0")
    late = branches("0.0.2.0.0", "0.0.2.0.1", scope="0.0.2.0")
    alone, sibling = branches("0.0.1.0", "0.0.1.1")
    unfinished, tenth = branches("0.0.3", "0.0.10")
    culprit_outside = task("r", "0.1")
    everything = (*openers, culprit, beside, *late, alone, sibling, unfinished, tenth, culprit_outside)
    await write(
        store, [*changes, settled(root), c.AddScope(outer), *map(c.AddScope, inner), *map(c.AddTask, everything)]
    )
    await write(store, [settled(opener, nodes=b"[]") for opener in openers])
    await write(store, [  # a task of the inner Gather fails: so does that, and its branch of the outer one
        failed(culprit), c.MoveScope(run_id="r", path="0.0.0.0", outstanding=0, status=ScopeStatus.FAILED),
        c.CancelBelow("r", "0.0.0.0", None, 1050.0), c.MarkLeaf("r", culprit.id, "0.0"),
    ])  # fmt: skip
    await write(store, [failed(alone), c.MarkLeaf("r", alone.id, "0.0"), c.CancelBelow("r", "0.0.1", "0.0", 1051.0)])
    await write(store, [
        c.MoveScope(run_id="r", path="0.0.2.0", outstanding=0, status=ScopeStatus.FAILED),
        c.CancelBelow("r", "0.0.2.0", None, 1052.0), c.MarkLeaf("r", openers[1].id, "0.0", ERROR),
    ])  # fmt: skip
    [collected] = await write(store, [c.Collect("r", "0.0")])
    assert isinstance(collected, e.Collected)
    assert {leaf.path: leaf.error for leaf in collected.leaves} == dict.fromkeys(
        (culprit.path, alone.path, openers[1].path), ERROR
    )
    before = await statuses(store)
    await fail(store, culprit_outside)
    assert await reopen(store) == []
    after = await statuses(store)
    again = {path for path, status in after.items() if status == "queued"}
    assert again == {"0.0.3", "0.0.10", "0.1"}
    assert {path: after[path] for path in after if path not in again} == {
        path: before[path] for path in before if path not in again
    }
    assert await scopes(store, "", "0.0", "0.0.0.0", "0.0.2.0") == {
        "": ("open", 2), "0.0": ("open", 2), "0.0.0.0": ("failed", 0), "0.0.2.0": ("failed", 0),
    }  # fmt: skip


async def test_a_scope_that_had_all_its_values_is_collected_again(store: Store) -> None:
    """Its continuation could not be made: the values were too large together."""
    root, changes = begun()
    done = branches("0.0.0")[0]
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=0)
    await write(store, [
        *changes, settled(root, outputs=b'{"k":1}'), c.AddScope(gather), c.AddTask(done),
        settled(done, outputs=b'{"n":1}', leaf_of="0.0"),
        c.MoveScope(run_id="r", path="0.0", outstanding=0, status=ScopeStatus.FAILED),
        c.EndRun(run_id="r", status=RunStatus.FAILED, ended_at=1100.0), c.CancelBelow("r", "", None, 1100.0),
    ])  # fmt: skip
    [collected] = await reopen(store)
    assert isinstance(collected, e.Collected)
    assert (collected.scope, collected.outputs, [leaf.path for leaf in collected.leaves]) == (
        "0.0",
        b'{"k":1}',
        ["0.0.0"],
    )
    assert await scopes(store, "", "0.0") == {"": ("open", 1), "0.0": ("open", 0)}


async def test_a_run_may_fail_and_go_on_in_one_call(store: Store) -> None:
    root, changes = begun()
    await write(store, [
        *changes, failed(root), c.EndRun(run_id="r", status=RunStatus.FAILED, ended_at=1.0),
        c.CancelBelow("r", "", None, 1.0), c.MoveRun("r", RunStatus.RUNNING), c.Reopen("r", 2.0),
    ])  # fmt: skip
    assert await statuses(store) == {"0": "queued"}
    assert (await load(store, runs=frozenset({"r"}))).runs["r"].status is RunStatus.RUNNING


async def test_ten_thousand_branches_go_on(store: Store) -> None:
    root, changes = begun()
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=10_000, return_exceptions=True)
    every = branches(*(f"0.0.{n}" for n in range(10_000)))
    await write(store, [*changes, settled(root), c.AddScope(gather), *map(c.AddTask, every)])
    await write(store, [change for of in every[:4_000] for change in (failed(of), c.MarkLeaf("r", of.id, "0.0"))])
    await write(store, [
        c.EndRun(run_id="r", status=RunStatus.FAILED, ended_at=1.0), c.CancelBelow("r", "", None, 1.0),
    ])  # fmt: skip
    await reopen(store)
    assert await scopes(store, "", "0.0") == {"": ("open", 1), "0.0": ("open", 6_000)}
    cancelled, *others = await write(store, [c.FailOutstanding("r", "0.0", ERROR, 2.0)])
    assert cancelled == e.Cancelled("r", "0.0", 6_000)
    assert len(attempts(*others)) == 6_000
    assert set((await statuses(store)).values()) == {"succeeded", "failed"}


# What is kept, and for how long


async def test_the_newest_announcement_of_a_node_counts(store: Store) -> None:
    old, new = (
        wire.NodeInfo(name="a", on_error="x"),
        wire.NodeInfo(name="a", timeout=5.0, schemas={"inputs": {"t": NUL}}),
    )
    await store.transact(lambda tx: tx.record_workers([wire.Worker(worker="v", nodes=(old,))], 1000.0))
    newest = [wire.Worker(worker="v", nodes=(old,)), wire.Worker(worker="w", nodes=(new, wire.NodeInfo(name="b")))]
    await store.transact(lambda tx: tx.record_workers(newest, 1005.0))
    await store.transact(lambda tx: tx.record_workers(newest[:1], 1001.0))  # comes late
    infos = await store.query(lambda q: q.node_infos())
    assert [(name, at) for name, _, at in infos] == [("a", 1005.0), ("b", 1005.0)]
    assert wire.NodeInfo.model_validate_json(infos[0][1]) == new


async def test_dead_letters_are_removed(store: Store) -> None:
    letters = [DeadLetter("reason", f"{n}", "queue", ODD, b"{}", 1.0, NUL) for n in range(3)]
    await store.transact(lambda tx: tx.add_dead(letters))
    kept = list(reversed(await store.query(lambda q: q.dead(limit=9))))
    assert [replace(letter, id=None) for letter in kept] == letters
    ids = [letter.id or 0 for letter in kept]
    assert await store.query(lambda q: (q.dead_letter(ids[1]), q.dead_letter(10**9))) == (kept[1], None)
    assert await store.query(lambda q: q.count_dead()) == 3
    await store.transact(lambda tx: tx.remove_dead([ids[2], ids[0], ids[2], 10**9]))
    await store.transact(lambda tx: (tx.remove_dead(ids[:1]), tx.remove_dead([])))
    assert await store.query(lambda q: (q.dead(limit=9), q.count_dead())) == ([kept[1]], 1)


async def test_the_archive_tells_how_far_it_is(store: Store) -> None:
    assert await store.query(lambda q: q.archive_offset()) is None
    await store.transact(lambda tx: tx.archive([], 7))
    assert await store.query(lambda q: q.archive_offset()) == 7


async def test_old_runs_are_removed_with_all_that_is_kept_of_them(store: Store, clock: Clock) -> None:
    for run_id, ended_at in (("old", 1010.0), ("older", 1005.0), ("new", 1030.0), ("running", None)):
        root, changes = begun(run_id)
        command = c.NoteCommand(run_id, uuid4(), "pause", 1001.0)
        odd = c.Supersede(run_id=run_id, task_id=root.id, attempt=1, status="s", reason="r", at=1.0)
        await write(store, [*changes, settled(root), command, odd])
        line = wire.Log(ts=1.0, level="info", message="m", run_id=run_id)
        await store.transact(lambda tx, line=line: tx.archive([line], None))
        if ended_at is not None:
            await write(store, [c.EndRun(run_id=run_id, status=RunStatus.SUCCEEDED, ended_at=ended_at)])
    await write(store, [c.AddSignal("old", "n", Signal(uuid4(), b"{}"), 1.0)])
    pruned = [await store.transact(lambda tx: tx.prune(1020.0, 1_000)) for _ in range(2)]
    assert [step.runs for step in pruned] == [2, 0]
    left, _ = await store.query(lambda q: q.runs(limit=9))
    assert {run.id for run in left} == {"new", "running"}
    for run_id, there in (("old", 0), ("older", 0), ("new", 1), ("running", 1)):
        kept = await store.query(
            lambda q, r=run_id: (q.tasks(r), q.logs(run_id=r), q.commands(r), q.superseded(r), q.signals(r))
        )
        assert [len(part) for part in kept] == [there] * 4 + [0]
    state = await load(store, scopes=frozenset({("old", ""), ("new", "")}))
    assert list(state.scopes) == [("new", "")]


# Audits


async def test_a_run_is_read_whole(store: Store) -> None:
    root, changes = begun()
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, branches=2, outstanding=1, then=b'{"node":"c"}')
    one, two = task("r", "0.0.0", scope="0.0"), task("r", "0.0.1", scope="0.0", inputs=None, inputs_from=root.id)
    await write(
        store,
        [
            *changes,
            settled(root, outputs=ODD, nodes=b'["x"]'),
            c.AddScope(gather),
            *map(c.AddTask, (one, two)),
            failed(one, leaf_of="0.0"),
        ],
    )
    whole = await store.query(lambda q: q.whole("r"))
    assert whole is not None
    assert (whole.run.id, whole.run.status, whole.run.outputs) == ("r", RunStatus.RUNNING, None)
    assert whole.scope["0.0"] == gather
    assert whole.scope[""].parent is None
    assert (whole.at["0"].outputs, whole.at["0"].nodes) == (ODD, b'["x"]')
    assert (whole.at["0.0.0"].error, whole.at["0.0.0"].leaf_of, whole.at["0.0.0"].inputs) == (ERROR, "0.0", b'{"a":1}')
    assert (whole.at["0.0.1"].inputs, whole.at["0.0.1"].inputs_from) == (None, root.id)
    await write(store, [c.EndRun(run_id="r", status=RunStatus.SUCCEEDED, ended_at=1001.0, outputs_from=root.id)])
    ended = await store.query(lambda q: q.whole("r"))
    assert ended is not None
    assert ended.run.outputs == ODD
    assert await store.query(lambda q: q.whole("nobody")) is None


async def test_dead_letters_are_counted_by_reason(store: Store) -> None:
    assert await store.query(lambda q: q.dead_counts()) == {}
    letters = [
        DeadLetter(reason=why, detail="", queue="q", body=b"", properties=b"{}", at=1.0) for why in ("a", NUL, "a")
    ]
    await store.transact(lambda tx: tx.add_dead(letters))
    assert await store.query(lambda q: q.dead_counts()) == {"a": 2, NUL: 1}
