"""The approval: a run that waits for a person is explained while it waits, and goes on by signal or by timeout."""

from __future__ import annotations

import json
import re

from tests.e2e.processes import Shell

CLAIM = ("-F", "who=ann", "-F", "amount=480", "-F", "for=train")


async def begin(shell: Shell) -> None:
    await shell.coordinator()
    await shell.worker("expense", "pay", "escalate")


async def explained(shell: Shell, run_id: str, kind: str) -> dict:
    """The one outstanding task, once the run is there and it is outstanding for this reason."""
    for _ in range(40):
        code, out, said = await shell.call("runs", "explain", run_id, "--json")
        assert code in (0, 4), said
        if code == 0 and [task["kind"] for task in json.loads(out)["tasks"]] == [kind]:
            return json.loads(out)["tasks"][0]
    raise AssertionError(f"never {kind}: {out}{said}")


async def test_a_person_approves(shell):
    await begin(shell)
    starting = await shell.flowkit("start", "expense", *CLAIM, "--id", "trip", "--wait")
    task = await explained(shell, "trip", "waiting")
    assert (task["node"], task["status"], task["hint"]) == ("pay", "waiting", "flowkit runs signal trip approval")
    code, out, _ = await shell.call("runs", "explain", "trip")
    assert code == 0
    assert re.search("pay: waits for signal 'approval', for (3 d 0|2 d 23) h more", out)  # rounded up at first

    code, _, said = await shell.call("runs", "signal", "trip", "approval", "-F", "approved=true", "-F", "by=bob")
    assert code == 0, said
    code, out = await starting.result()
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"paid": 480, "approved_by": "bob"}), starting.said
    assert (await shell.call("runs", "explain", "trip"))[1].startswith("run trip succeeded")
    code, _, said = await shell.call("runs", "signal", "trip", "approval")
    assert code == 6
    assert "it is succeeded, not running or paused" in said


async def test_a_signal_that_comes_first_is_kept(shell):
    coordinator = await shell.coordinator()
    assert (await shell.call("start", "expense", *CLAIM, "--id", "early"))[0] == 0
    await explained(shell, "early", "no-worker")
    refused = json.dumps({"approved": False, "by": "eve"})
    code, _, said = await shell.call("runs", "signal", "early", "approval", "--input", refused)
    assert (code, said) == (0, "run early is running\n")
    await coordinator.kill()
    await begin(shell)
    code, out, said = await shell.call("start", "expense", *CLAIM, "--id", "early", "--wait")
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"paid": 0, "refused_by": "eve"}), said


async def test_nobody_answers_in_time(shell):
    await begin(shell)
    claim = (*CLAIM, "-F", "approve_within=0.5")
    code, out, said = await shell.call("start", "expense", *claim, "--wait", "--timeout", "20s")
    outputs = json.loads(out.partition("\n")[2])
    assert (code, outputs) == (0, {"paid": 0, "escalated_to": "head of the house"}), said


async def test_a_small_claim_waits_for_nobody(shell):
    code, out, said = await shell.call("run", "expense", "-F", "who=ann", "-F", "amount=20")
    assert (code, json.loads(out)) == (0, {"paid": 20, "approved_by": "the rule for small claims"}), said


async def test_paused_cancelled_and_nothing_for_those_that_ended(shell):
    await shell.coordinator()
    assert (await shell.call("start", "expense", *CLAIM, "--id", "one"))[0] == 0
    await explained(shell, "one", "no-worker")
    for verb, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        code, _, said = await shell.call("runs", verb, "one")
        assert (code, said) == (0, f"run one is {status}\n")
    code, _, said = await shell.call("runs", "cancel", "one")
    assert code == 6
    assert "cannot cancel run 'one': it is cancelled" in said
