"""``flowkit schedule`` and what the other verbs say of schedules."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flowkit.flow.schedules import Schedule
from flowkit.flow.state import RunStatus
from tests.cli import kept
from tests.repository.fences import fences

NIGHTLY = ("--cron", "30 2 * * 1-5", "--node", "add")


@pytest.fixture
def store() -> None:
    """A store that a coordinator has left."""
    kept.transact(lambda transaction: None)


@pytest.fixture
def at_work() -> None:
    """As if a coordinator were at work on it."""
    kept.transact(lambda transaction: transaction.archive_claim("c1", time.time(), 600))


def change(name: str, **words: object) -> None:
    def work(transaction) -> None:
        transaction.put_schedule(replace(transaction.schedule(name), **words))

    kept.transact(work)


def test_add_list_remove(flowkit, store, at_work):
    said = flowkit("schedule", "list")
    assert (said.code, said.out, said.err.startswith("No schedules yet: flowkit schedule add")) == (0, "", True)
    said = flowkit("schedule", "add", "nightly", *NIGHTLY, "--timezone", "Europe/Berlin", "-F", "a=1", "-i", '{"b": 2}',
                   "--tag", "tenant=acme", "--missed", "once", "--overlap")  # fmt: skip
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("schedule nightly is added: At 02:30 on Monday through Friday (Europe/Berlin); next 2")
    (one,) = flowkit("schedule", "list", "--json").json["schedules"]
    assert one.pop("created_at") < one.pop("next_at")
    assert one == {
        "name": "nightly", "cron": "30 2 * * 1-5", "timezone": "Europe/Berlin", "node": "add",
        "inputs": {"a": 1, "b": 2}, "tags": {"tenant": "acme"}, "missed": "once", "overlap": True, "last_run": None,
        "skipped": None,
    }  # fmt: skip
    said = flowkit("schedule", "list")
    assert said.out.splitlines()[1].split("  ")[:3] == [
        "nightly", " At 02:30 on Monday through Friday (Europe/Berlin)", "add",
    ]  # fmt: skip
    assert said.err == ""
    said = flowkit("schedule", "remove", "nightly")
    assert (said.code, said.err) == (0, "schedule nightly is removed; runs that it began go on\n")
    assert flowkit("schedule", "list", "--json").json == {"v": 1, "schedules": []}


def test_the_same_once_more_changes_nothing_and_other_values_need_a_word(flowkit, store):
    assert flowkit("schedule", "add", "nightly", *NIGHTLY).code == 0
    change("nightly", last_run="nightly-20261124T023000Z")
    before = flowkit("schedule", "list", "--json").json
    said = flowkit("schedule", "add", "nightly", *NIGHTLY)
    assert (said.code, "is there already, nothing has changed" in said.err) == (0, True)
    said = flowkit("schedule", "add", "nightly", *NIGHTLY, "-F", "a=1")
    assert (said.code, "Add --replace to change it" in said.err) == (6, True)
    assert flowkit("schedule", "list", "--json").json == before
    said = flowkit("schedule", "add", "nightly", *NIGHTLY, "-F", "a=1", "--replace")
    assert (said.code, said.err.startswith("schedule nightly is replaced: ")) == (0, True)
    (one,) = flowkit("schedule", "list", "--json").json["schedules"]
    assert (one["inputs"], one["last_run"]["id"]) == ({"a": 1}, "nightly-20261124T023000Z")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("n", "--cron", "0 0 30 2 *", "--node", "add"), "cron line '0 0 30 2 *': its day-of-month cannot be"),
        (("n", "--cron", "0 0 LW * */7", "--node", "add"), "no day within fifty years fits it"),
        (("n", "--cron", "0 " + "1," * 300 + "1 * * *", "--node", "add"), "609 characters are more than 200"),
        (("n", "--cron", "0 0 0 1 1 *", "--node", "add"), "expected five fields"),
        (("n", "--cron", "0 0 \x00 1 *", "--node", "add"), "expected five fields"),
        (("n", *NIGHTLY, "--timezone", "europe/berlin"), "'europe/berlin': unknown; did you mean 'Europe/Berlin'?"),
        (("n", *NIGHTLY, "--timezone", "../../etc/passwd"), "unknown; expected one such as 'Europe/Berlin'"),
        (("n", *NIGHTLY, "--timezone", "Europe"), "unknown"),
        (("n", *NIGHTLY, "--timezone", "U\x00TC"), "unknown"),
        (("n", *NIGHTLY, "--timezone", ""), "unknown"),
        (("n", "--cron", "@daily", "--node", "no such"), "node 'no such': a name is a letter"),
        (("n", "--cron", "@daily", "--node", "a\x00"), "node 'a\\x00': a name is a letter"),
        (("", *NIGHTLY), "schedule name '': expected a letter"),
        (("2nd", *NIGHTLY), "schedule name '2nd': expected a letter"),
        (("n\x00", *NIGHTLY), "schedule name 'n\\x00': expected a letter"),
        (("n.m", *NIGHTLY), "schedule name 'n.m': expected a letter"),
        (("n" * 64, *NIGHTLY), "expected a letter, then up to 62"),
        (("n", *NIGHTLY, "-i", "[1]"), "--input: expected a JSON object"),
        (("n", *NIGHTLY, "-i", "{"), "--input: no JSON"),
        (("n", *NIGHTLY, "-i", '{"a": 99999999999999999999}'), "an integer over 64 bits"),
        (("n", *NIGHTLY, "-i", '{"a": 1, "a": 2}'), "--input: key 'a' stands there twice"),
        (("n", *NIGHTLY, "-F", "a=1e400"), "-F a: 1e400 is more than a 64-bit float can hold"),
        (("n", *NIGHTLY, "--tag", "k=1", "--tag", "k=2"), "--tag k=… is there twice"),
        (("n", *NIGHTLY, "--tag", "k=" + "x" * 2_001), "tags.k: String should have at most 2000 characters"),
        (("n", *NIGHTLY, "--tag", "k"), "--tag 'k': expected KEY=VALUE"),
        (("n", *NIGHTLY, "--missed", "twice"), "--missed 'twice': expected skip or once"),
        (("n", "--node", "add"), "Missing option '--cron'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_nothing_is_written(flowkit, store, arguments, says):
    said = flowkit("schedule", "add", *arguments)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert flowkit("schedule", "list", "--json").json["schedules"] == []


def test_inputs_that_no_message_could_carry(flowkit, store, monkeypatch):
    monkeypatch.setenv("FLOWKIT_MAX_MESSAGE_BYTES", "1000")
    said = flowkit("schedule", "add", "n", *NIGHTLY, "-F", f"a={'x' * 2000}")
    assert (said.code, "the inputs are too large" in said.err) == (2, True)


def test_what_json_can_carry_is_kept_whatever_it_is(flowkit, store):
    assert flowkit("schedule", "add", "n", *NIGHTLY, "-i", '{"a": "\\u0000\\u2028"}', "--tag", "k=\x00é").code == 0
    (one,) = flowkit("schedule", "list", "--json").json["schedules"]
    assert (one["inputs"], one["tags"]) == ({"a": "\x00\u2028"}, {"k": "\x00é"})


@pytest.mark.parametrize("name", ["nobody", "", "n\x00", "x" * 200])
def test_one_that_is_not_there_cannot_be_removed(flowkit, store, name):
    said = flowkit("schedule", "remove", name)
    assert (said.code, said.err.startswith("flowkit: no schedule ")) == (4, True)


def test_without_a_store_there_are_none(flowkit):
    for arguments in (("list",), ("remove", "n"), ("add", "n", *NIGHTLY)):
        said = flowkit("schedule", *arguments)
        assert (said.code, "a coordinator makes it" in said.err) == (3, True)


def test_without_cronsim_one_can_look_and_is_told_what_to_install(flowkit, store, at_work, monkeypatch):
    assert flowkit("schedule", "add", "n", *NIGHTLY).code == 0
    monkeypatch.setitem(sys.modules, "cronsim", None)
    said = flowkit("schedule", "add", "m", *NIGHTLY)
    assert (said.code, "pip install 'flowkit-mq[cron]'" in said.err) == (2, True)
    said = flowkit("schedule", "list")
    assert (said.code, "30 2 * * 1-5" in said.out, "cronsim is not installed here" in said.err) == (0, True, True)
    assert flowkit("schedule", "remove", "n").code == 0


def test_how_the_last_run_went_and_what_was_skipped(flowkit, store, at_work):
    for name, status in (("a", None), ("b", RunStatus.FAILED)):
        assert flowkit("schedule", "add", name, *NIGHTLY).code == 0
        kept.begin(f"{name}-1")
        if status is not None:
            kept.end(f"{name}-1", status)
        change(name, last_run=f"{name}-1")
    change("a", skipped_at=1_796_126_400.0, skipped="run a-1 had not ended")
    assert flowkit("schedule", "add", "c", *NIGHTLY).code == 0
    change("c", last_run="c-1", next_at=None, look_at=None)
    said = flowkit("schedule", "list")
    lines = [" ".join(line.split()) for line in said.out.splitlines()[1:]]
    assert lines[0].endswith("a-1 running 2026-12-01 12:00 UTC skipped: run a-1 had not ended")
    assert lines[1].endswith("b-1 failed")
    assert lines[2].endswith("add never c-1 pruned")
    listed = {one["name"]: one for one in flowkit("schedule", "list", "--json").json["schedules"]}
    assert listed["a"]["last_run"] | {"started_at": 0} == {
        "id": "a-1",
        "status": "running",
        "started_at": 0,
        "ended_at": None,
    }
    assert listed["a"]["skipped"] == {"at": "2026-12-01T12:00:00.000000Z", "why": "run a-1 had not ended"}
    assert listed["b"]["last_run"]["status"] == "failed"
    assert listed["c"]["last_run"] == {"id": "c-1", "status": None, "started_at": None, "ended_at": None}


def test_the_commands_of_the_how_to(flowkit, store, at_work):
    page = Path(__file__).parents[2] / "docs/how-to/run-on-a-schedule.md"
    (commands,) = [fence.text for fence in fences(page) if fence.language == "console"]
    said = [flowkit(*shlex.split(line)[2:]) for line in commands.splitlines()]
    assert [(one.code, bool(one.out)) for one in said] == [(0, False), (0, True), (0, False)]
    (shown,) = [fence.text for fence in fences(page) if fence.language == "text"]
    assert said[1].out.splitlines()[0].split() == shown.splitlines()[0].split()
    assert "  ".join(said[1].out.splitlines()[1].split("  ")[:3]) in shown


def checked(flowkit) -> dict[str, dict]:
    """What doctor finds of schedules."""
    checks = flowkit("doctor", "--json", "--broker", "memory:doctor").json["checks"]
    return next((one for one in checks if one["name"] == "schedules"), None)


def test_why_none_begins(flowkit, store):
    assert checked(flowkit) is None
    assert flowkit("schedule", "add", "n", *NIGHTLY).code == 0
    assert "No coordinator is at work on this store" in flowkit("schedule", "list").err
    found = checked(flowkit)
    assert (found["ok"], found["found"], "flowkit coordinator" in found["fix"]) == (False, "1 of them", True)
    kept.transact(lambda transaction: transaction.archive_claim("c1", time.time(), 600))
    assert flowkit("schedule", "list").err == ""
    assert checked(flowkit)["ok"]
    change("n", look_at=time.time() - 300)
    assert flowkit("schedule", "list").err.startswith("n: due, and no run begins.")


def test_runs_tell_which_schedule_began_them(flowkit, store):
    from flowkit.flow.advance import advance
    from flowkit.flow.context import Context
    from flowkit.flow.schedules import tick
    from flowkit.flow.state import State

    due = Schedule(name="nightly", cron="", timezone="UTC", node="add", created_at=0, next_at=1_796_126_400.0)
    _, started = tick(due, 1_796_126_401.0, lambda time: 1_796_130_000.0, busy=False)
    kept.transact(lambda tx: tx.write(advance(State(), started, Context(time.time(), b"secret"))))
    said = flowkit("runs", "show", "nightly-20261201T120000Z")
    assert "schedule nightly\n" in said.out
    (run,) = flowkit("runs", "list", "--json").json["runs"]
    assert (run["id"], run["origin"], run["parent"]) == ("nightly-20261201T120000Z", "schedule", None)
