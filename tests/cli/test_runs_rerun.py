"""Reruns from the command line, runs by parent and tag, and signals for many."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from flowkit.coordinator.commit import commit
from flowkit.flow.events import Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, wrap
from tests.cli import kept
from tests.cli.test_runs_control import commands

__all__ = ["commands"]
NOWHERE = ("--broker", "amqp://127.0.0.1:1/")


def work(run_id: str, **results) -> dict[str, UUID]:
    """A run of node ``order``; results by path (``p0_1``) in order. The ids of its tasks by path."""

    def apply(transaction):
        start = Started(run_id, wire.Start(node="order", run_id=run_id, inputs={"x": 1}, tags={"tenant": run_id}))
        commit(transaction, [start], secret=b"secret", limits=Limits())

    kept.transact(apply)
    for path, (nodes, outputs) in results.items():
        task = tasks(run_id)[path[1:].replace("_", ".")]
        items = tuple(map(wrap, nodes))
        result = Reported(wire.Result(task_id=task, run_id=run_id, nodes=items, outputs=outputs))
        kept.transact(lambda tx, result=result: commit(tx, [result], secret=b"secret", limits=Limits()))
    return tasks(run_id)


def tasks(run_id: str) -> dict[str, UUID]:
    import asyncio

    from flowkit.store import open_store

    async def look():
        store = await open_store(kept.URL)
        try:
            return await store.query(lambda query: query.tasks(run_id))
        finally:
            await store.close()

    return {task.path: task.id for task in asyncio.run(look())}


def order(run_id: str = "r") -> dict[str, UUID]:
    """Ended: order, two times pack side by side, ship, bill."""
    gather = Gather([Send("pack", {"n": 0}), Send("pack", {"n": 1})], then="ship")
    return work(
        run_id, p0=([gather], {"o": 7}), p0_0_0=([], {}), p0_0_1=([], {}),
        p0_0_then=(["bill"], {"o": 8}), p0_0_then_0=([], {"paid": 9}),
    )  # fmt: skip


@pytest.mark.parametrize("task", ["bill", "0.0.then.0", None], ids=["node", "path", "id"])
def test_from_a_task_as_people_name_it(flowkit, commands, task):
    ids = order()
    wanted = ids["0.0.then.0"]
    said = flowkit("runs", "rerun", "r", "--from", task or str(wanted), "--no-wait")
    assert said.code == 0, said.err
    (command,) = commands(1)
    assert (command.kind, command.run_id, command.task_id, command.input) == ("rerun", "r", wanted, None)
    assert said.out == f"{command.new_run_id}\n"


def test_inputs_are_edited_or_given_anew(flowkit, commands):
    order()
    for words in (("-F", "o=5"), ("--input", '{"a": 1}'), ("--input", '{"a": 1}', "-F", "b=2"), ("--input", "{}")):
        assert flowkit("runs", "rerun", "r", "--from", "bill", "--no-wait", *words).code == 0
    assert flowkit("runs", "rerun", "r", "--no-wait", "-F", "y=2", "--id", "mine").out == "mine\n"
    found = commands(5)
    assert [one.input for one in found] == [{"o": 5}, {"a": 1}, {"a": 1, "b": 2}, {}, {"x": 1, "y": 2}]
    assert found[-1].new_run_id == "mine"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("r", "--from", "9.9"), 4, "no task '9.9'. 'flowkit runs tree r' shows those of run r."),
        (("r", "--from", str(UUID(int=1))), 4, "no task '00000000-0000-0000-0000-000000000001'"),
        (("r", "--from", ""), 4, "no task ''"),
        (("r", "--from", "pack"), 2, "node 'pack' has 2 tasks in run r. Say which: 0.0.0, 0.0.1"),
        (("ghost",), 4, "no run 'ghost'"),
        (("going",), 6, "cannot rerun run 'going': it is running, not succeeded or failed or cancelled"),
        (("r", "--id", "going"), 6, "run 'going' exists already"),
        (("r", "--id", "a b"), 2, "--id 'a b'"),
        (("r", "going", "--id", "new"), 2, "name one run"),
        (("--where", "node=order", "--id", "new"), 2, "name one run"),
        ((), 2, "which runs?"),
        (("r", "--input", "[1]"), 2, "expected a JSON object"),
        (("r", "-F", "a"), 2, "expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_rerun_is_said_before_anything_is_sent(flowkit, words, code, says):
    order()
    work("going")
    said = flowkit("runs", "rerun", *words, *NOWHERE)
    assert (said.code, says in said.err, said.out) == (code, True, ""), said.err


def test_many_are_counted_first_and_those_without_the_task_left_out(flowkit, commands):
    order("one")
    order("two")
    work("three", p0=([], {}))
    work("going")
    said = flowkit("runs", "rerun", "--where", "node=order", "--from", "ship", "--dry-run")
    assert (said.code, sorted(said.out.split())) == (0, ["one", "two"])
    assert said.err.startswith("1 run without a task 'ship' left out\n2 runs to rerun\n")
    assert "run one from task 0.0.then (ship)" in said.err
    said = flowkit("runs", "rerun", "--where", "node=order", "--from", "ship")
    assert (said.code, "to rerun 2 runs: add --yes" in said.err) == (6, True)
    said = flowkit("runs", "rerun", "--where", "tag.tenant=one", "--from", "ship", "--no-wait")
    (command,) = commands(1)
    assert (said.out, command.run_id) == (f"{command.new_run_id}\n", "one")


def test_without_a_coordinator_it_is_queued_and_said(flowkit, commands):
    order()
    said = flowkit("runs", "rerun", "r")
    (command,) = commands(1)
    assert (said.code, said.out, "It is queued" in said.err) == (5, f"{command.new_run_id}\n", True)


# What was begun by a run, or from it


def family() -> tuple[str, str]:
    """A run that begun a detached one, and was rerun; their ids."""
    ids = work("r", p0=([Send("invoice", {"n": 1}, detached=True), "ship"], {}), p0_1=([], {}))

    def apply(transaction):
        from flowkit.flow.events import Commanded

        command = wire.Command(id=UUID(int=5), kind="rerun", run_id="r", task_id=ids["0.1"], new_run_id="again")
        commit(transaction, [Commanded(command)], secret=b"secret", limits=Limits())

    time.sleep(0.001)  # a rerun begins later than what it copies has ended, on the coarsest clock too
    kept.transact(apply)
    return "again", "r"


def test_parents_and_children_are_shown(flowkit):
    family()
    shown = flowkit("runs", "show", "r", "--json").json
    assert (shown["parent"], shown["origin"]) == (None, None)
    assert [(one["node"], one["origin"], one["status"]) for one in shown["children"]] == [
        ("invoice", "detached", "running"), ("order", "rerun", "running"),
    ]  # fmt: skip
    invoice = shown["children"][0]["id"]
    assert f"{invoice}  invoice  detached  running" in flowkit("runs", "show", "r").out
    tree = flowkit("runs", "tree", "r").out.splitlines()
    assert tree[-1] == f"↗ invoice  detached, running  {invoice}"
    assert len(tree) == 3
    assert "parent   r (detached)" in flowkit("runs", "show", invoice).out
    again = flowkit("runs", "show", "again", "--json").json
    assert {task["path"]: task["copied"] for task in again["tasks"]} == {"0": True, "0.1": False}
    assert "order  succeeded (copied)" in flowkit("runs", "tree", "again").out


def test_runs_by_parent_and_tag(flowkit):
    family()
    order("acme")

    def ids(*words: str) -> list[str]:
        return [run["id"] for run in flowkit("runs", "list", "--json", *words).json["runs"]]

    assert len(ids("--parent", "r")) == 2
    assert ids("--tag", "tenant=acme") == ["acme"]
    assert len(ids("--tag", "tenant=r")) == 3
    assert ids("--tag", "tenant=r", "--tag", "other=x") == []
    assert ids("--parent", "r", "--status", "succeeded") == []
    assert flowkit("runs", "list", "--tag", "tenant=nobody").err == "No such runs.\n"
    assert flowkit("runs", "list", "--tag", "tenant").code == 2
    page = flowkit("runs", "list", "--json", "--tag", "tenant=r", "--limit", "2").json
    rest = flowkit("runs", "list", "--json", "--tag", "tenant=r", "--limit", "2", "--after", page["next"]).json
    assert (len(page["runs"]), len(rest["runs"]), rest["next"]) == (2, 1, None)
    assert {run["id"] for run in [*page["runs"], *rest["runs"]]} == set(ids("--tag", "tenant=r"))


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry", "rerun", "signal"])
def test_every_verb_takes_where(flowkit, verb):
    statuses = {"resume": "paused", "retry": "failed", "rerun": "cancelled"}
    for number in range(3):
        kept.begin(f"r{number}", tags={"tenant": "a" if number else "b"})
        status = statuses.get(verb)
        if status == "paused":
            kept.pause(f"r{number}")
        elif status:
            kept.end(f"r{number}", RunStatus(status))
    name = ("go",) if verb == "signal" else ()
    where = ("--where", f"status={statuses.get(verb, 'running')}", "--where", "node=add", "--where", "tag.tenant=a")
    said = flowkit("runs", verb, *name, *where, "--since", "1h", "--dry-run")
    assert (said.code, sorted(said.out.split())) == (0, ["r1", "r2"]), said.err
    assert said.err.startswith(f"2 runs to {verb}\n")
    said = flowkit("runs", verb, *name, *where)
    assert (said.code, f"to {verb} 2 runs: add --yes" in said.err) == (6, True)
    said = flowkit("runs", verb, *name, "--where", "parent=nobody", "--dry-run")
    assert (said.code, said.err) == (0, f"0 runs to {verb}\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("go",), "signal 'go' for which run?"),
        (("r", "s", "go"), "run ids come first"),
        (("r", "go", "--where", "node=a"), "not both"),
        (("go", "--where", "node=a", "--where", "node=b"), "no run has two values of node"),
        (("r", ""), "expected 1 to 100 characters"),
    ],
)
def test_which_run_a_signal_is_for(flowkit, words, says):
    said = flowkit("runs", "signal", *words)
    assert (said.code, says in said.err) == (2, True), said.err
