"""What people ask of runs, how they choose them, and what they are told."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from flowkit.broker import open_broker
from flowkit.cli import resources
from flowkit.cli.runs import control
from flowkit.flow.changes import NoteCommand
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.store import open_store
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from tests.cli import kept


@pytest.fixture
def commands(rabbitmq_url, namespace, monkeypatch):
    """The commands that were published and nobody took; the command line waits a moment only for a coordinator."""
    monkeypatch.setenv("FLOWKIT_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("FLOWKIT_NAMESPACE", namespace)
    monkeypatch.setattr(control, "PATIENCE", 0.2)

    def take(count: int) -> list[wire.Command]:
        async def run():
            broker = open_broker(rabbitmq_url)
            try:
                await broker.connect(10)
                consumer = broker.consume(Topology(namespace).commands, prefetch=100)
                found = []
                async with asyncio.timeout(10):
                    while len(found) < count:
                        found += await consumer.receive(100)
                await consumer.ack(found)
                return [wire.decode(wire.Command, one.body) for one in found]
            finally:
                await broker.close()

        return asyncio.run(run())

    return take


@pytest.mark.parametrize(
    "verb", [("cancel", "r"), ("retry", "r"), ("signal", "r", "go"), ("explain", "r")], ids=lambda verb: verb[0]
)
def test_a_run_that_is_not_there(flowkit, verb):
    flowkit("db", "upgrade")
    said = flowkit("runs", *verb)
    assert (said.code, said.err) == (4, "flowkit: no run 'r'. 'flowkit runs list' shows those that are there.\n")


@pytest.mark.parametrize(
    ("verb", "status", "says"),
    [
        (("cancel", "r"), RunStatus.SUCCEEDED, "cannot cancel run 'r': it is succeeded, not running or paused"),
        (("retry", "r"), RunStatus.SUCCEEDED, "it is succeeded, not failed"),
        (("retry", "r"), RunStatus.CANCELLED, "it is cancelled, not failed"),
        (("pause", "r"), RunStatus.FAILED, "it is failed, not running"),
        (("resume", "r"), RunStatus.FAILED, "it is failed, not paused"),
        (("signal", "r", "go"), RunStatus.FAILED, "cannot signal run 'r': it is failed, not running or paused"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(flowkit, verb, status, says):
    kept.begin("r")
    kept.end("r", status)
    said = flowkit("runs", *verb, "--broker", "amqp://127.0.0.1:1/")
    assert (said.code, says in said.err) == (6, True), said.err


def test_of_several_that_are_named_all_have_to_fit(flowkit):
    kept.begin("one")
    kept.begin("two")
    kept.end("two", RunStatus.FAILED)
    said = flowkit("runs", "cancel", "one", "two", "--broker", "amqp://127.0.0.1:1/")
    assert (said.code, "run 'two'" in said.err) == (6, True)


def test_without_a_coordinator_it_is_queued_and_said(flowkit, commands):
    kept.begin("r")
    said = flowkit("runs", "cancel", "r")
    assert (said.code, "It is queued" in said.err) == (5, True), said.err
    (command,) = commands(1)
    assert (command.kind, command.run_id) == ("cancel", "r")
    assert isinstance(command.id, UUID)


@pytest.mark.parametrize("verb", [("signal", "r", "go"), ("rerun", "r")], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--input", '{"a": 1e400}'), "--input: a: 1e400 is more than a 64-bit float can hold; send it as text"),
        (("--input", '{"a": 1, "a": 2}'), "--input: key 'a' stands there twice"),
        (("-F", "a=18446744073709551616"), "-F a: an integer over 64 bits does not fit JSON here"),
        (("-F", "a=\udcff"), "inputs.a: text with a lone surrogate cannot be UTF-8"),
    ],
)
def test_what_cannot_be_kept_is_refused(flowkit, verb, given, said):
    told = flowkit("runs", *verb, *given)
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert said in told.err


def test_a_refusal_by_the_coordinator_is_said(flowkit, monkeypatch):
    """The run changed after the command line had looked at it."""
    kept.begin("r")

    async def refused(settings, commands):
        store = await open_store(settings.store_url)
        note = NoteCommand("r", commands[0].id, "pause", 1.0, "cannot pause run 'r': it is paused, not running")
        await store.transact(lambda transaction: transaction.write([note]))
        await store.close()

    monkeypatch.setattr(control, "publish", refused)
    said = flowkit("runs", "pause", "r")
    assert (said.code, "refused: cannot pause run 'r': it is paused" in said.err) == (6, True), said.err


def test_a_signal_with_its_input(flowkit, commands):
    kept.begin("r")
    said = flowkit("runs", "signal", "r", "approval", "-F", "approved=true", "--input", '{"by": "ann"}', "--no-wait")
    assert (said.code, said.err) == (0, "queued for 1 run; a coordinator will do it\n")
    (command,) = commands(1)
    assert (command.kind, command.name, command.input) == ("signal", "approval", {"by": "ann", "approved": True})


def test_cancel_with_a_grace(flowkit, commands):
    kept.begin("r")
    assert flowkit("runs", "cancel", "r", "--grace", "1m30s", "--no-wait").code == 0
    assert flowkit("runs", "cancel", "r", "--no-wait").code == 0
    assert [command.grace for command in commands(2)] == [90, None]


@pytest.mark.parametrize("grace", ["-5", "nan", "inf", "soon", "", "9" * 400])
def test_a_grace_is_a_duration(flowkit, grace):
    said = flowkit("runs", "cancel", "r", "--grace", grace, "--broker", "amqp://127.0.0.1:1/")
    assert (said.code, "--grace" in said.err, "Traceback" in said.err) == (2, True, False), said.err


def test_a_leased_task_is_shown(flowkit):
    until = time.time() + 60
    kept.begin("r", status=TaskStatus.RUNNING, worker="w1", started_at=time.time(), leased_until=until)
    assert "running (leased)" in flowkit("runs", "show", "r").out
    (task,) = flowkit("runs", "show", "r", "--json").json["tasks"]
    assert task["leased_until"] is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which runs?"),
        (("r", "--since", "1h"), "not both"),
        (("r", "--where", "status=failed"), "not both"),
        (("--where", "status=odd"), "expected status=running|paused"),
        (("--where", "colour=red"), "expected status="),
        (("--where", "status"), "expected status="),
        (("--since", "soon"), "expected a duration"),
    ],
)
def test_how_runs_are_chosen(flowkit, words, says):
    said = flowkit("runs", "cancel", *words)
    assert (said.code, says in said.err) == (2, True), said.err


def test_many_are_counted_first(flowkit, commands):
    for number in range(3):
        kept.begin(f"r{number}", tags={"tenant": "a" if number else "b"})
    kept.begin("other", "elsewhere")
    kept.begin("done")
    kept.end("done", RunStatus.SUCCEEDED)
    said = flowkit("runs", "cancel", "--where", "node=add", "--since", "1h", "--dry-run")
    assert (said.code, sorted(said.out.split()), said.err) == (0, ["r0", "r1", "r2"], "3 runs to cancel\n")
    said = flowkit("runs", "cancel", "--where", "node=add")
    assert (said.code, "to cancel 3 runs: add --yes" in said.err) == (6, True)
    said = flowkit("runs", "cancel", "--where", "node=add", "--where", "tag.tenant=a", "--yes", "--no-wait")
    assert (said.code, said.err.splitlines()[0]) == (0, "2 runs to cancel")
    assert {command.run_id for command in commands(2)} == {"r1", "r2"}
    said = flowkit("runs", "retry", "--where", "status=failed", "--yes")
    assert (said.code, said.err) == (0, "0 runs to retry\nNothing was done.\n")


def test_explain_with_the_store_alone(flowkit, monkeypatch):
    monkeypatch.setattr(resources, "PATIENCE", 0.1)
    kept.begin("r", "ship", status=TaskStatus.HELD, held_for="paused")
    kept.pause("r")
    said = flowkit("runs", "explain", "r", "--broker", "amqp://127.0.0.1:1/")
    assert (said.code, "What follows is from the store alone." in said.err) == (0, True)
    assert said.out.startswith("run r is paused, 1 task outstanding\n→ flowkit runs resume r\n")
    assert "0  ship: held: the run is paused" in said.out


def test_explain_what_is_held(flowkit, commands):
    error = b'{"type": "TimeoutError", "message": "too\\nslow", "node": "ship"}'
    kept.begin("r", "ship", status=TaskStatus.HELD, held_for="retry", due=time.time() + 42.4, error=error, tries=2)
    said = flowkit("runs", "explain", "r")
    assert said.code == 0
    assert said.out.splitlines()[0] == "run r is running, 1 task outstanding"
    assert "0  ship: retry in 42 s; the last attempt failed: TimeoutError: too slow" in said.out
    assert "→ no coordinator is at work: flowkit coordinator" in said.out
    (task,) = flowkit("runs", "explain", "r", "--json").json["tasks"]
    assert (task["kind"], task["path"], task["attempt"]) == ("retrying", "0", 1)


def test_explain_what_nobody_works_for(flowkit, commands):
    kept.begin("r", "ship", sent_at=time.time() - 60)
    said = flowkit("runs", "explain", "r")
    assert "ship: no worker for node 'ship': it waits in its queue for 1 min 0" in said.out  # or a few seconds more
    assert "→ flowkit worker --node ship" in said.out


def test_explain_an_ended_run(flowkit):
    kept.begin("r")
    kept.end("r", RunStatus.FAILED, error=b'{"type": "KeyError", "message": "a", "node": "add"}')
    said = flowkit("runs", "explain", "r")
    assert said.out.startswith("run r failed in node add at ")
    assert said.out.endswith(": KeyError: a\n→ flowkit runs retry r\n")
    assert flowkit("runs", "explain", "r", "--json").json["tasks"] == []


def test_prune(flowkit):
    long_ago = time.time() - 40 * 86_400
    for number in range(3):
        kept.begin(f"old{number}", at=long_ago)
        kept.end(f"old{number}", RunStatus.SUCCEEDED, long_ago)
    kept.begin("young")
    kept.end("young", RunStatus.SUCCEEDED)
    kept.begin("under-way")
    said = flowkit("runs", "prune", "--older-than", "30d", "--dry-run")
    assert (said.code, said.err.split(" ended")[0]) == (0, "3 runs")
    said = flowkit("runs", "prune", "--older-than", "30d")
    assert (said.code, "add --yes" in said.err) == (6, True)
    said = flowkit("runs", "prune", "--older-than", "30d", "--yes")
    assert (said.code, said.err.endswith("3 runs removed\n")) == (0, True)
    assert {run["id"] for run in flowkit("runs", "list", "--json").json["runs"]} == {"young", "under-way"}
