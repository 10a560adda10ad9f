"""A run that ended goes on from its middle, as somebody at a keyboard asks for it."""

from __future__ import annotations

import json


async def test_rerun_a_claim(shell):
    await shell.coordinator()
    await shell.worker("expense", "pay", "escalate")
    claim = ("-F", "who=ann", "-F", "amount=20")
    code, out, said = await shell.call("start", "expense", *claim, "--id", "tea", "--tag", "team=a", "--wait")
    assert code == 0, said

    code, out, said = await shell.call("runs", "rerun", "tea", "--from", "pay", "-F", "amount=30", "--id", "tea-2")
    assert (code, out) == (0, "tea-2\n"), said
    # The same id with other words is refused; the run that is there is waited for by its own start.
    code, _, said = await shell.call("runs", "rerun", "tea", "--id", "tea-2")
    assert (code, "run 'tea-2' exists already" in said) == (6, True)
    code, out, said = await shell.call("start", "expense", *claim, "--id", "tea-2", "--wait", "--timeout", "20s")
    assert (code, json.loads(out.partition("\n")[2])["paid"]) == (0, 30), said

    code, out, _ = await shell.call("runs", "show", "tea-2", "--json")
    shown = json.loads(out)
    assert (shown["parent"], shown["origin"], shown["tags"]) == ("tea", "rerun", {"team": "a"})
    assert [(task["node"], task["copied"]) for task in shown["tasks"]] == [("expense", True), ("pay", False)]
    code, out, _ = await shell.call("runs", "list", "--parent", "tea", "--tag", "team=a", "--json")
    assert [run["id"] for run in json.loads(out)["runs"]] == ["tea-2"]

    code, out, said = await shell.call("runs", "rerun", "--where", "parent=tea", "--yes")
    assert (code, len(out.split())) == (0, 1), said
    code, _, said = await shell.call("runs", "rerun", "tea", "--from", "nobody")
    assert (code, "no task 'nobody'" in said) == (4, True)
