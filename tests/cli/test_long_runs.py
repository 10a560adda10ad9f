"""A run of thousands of steps, as the command line shows it: bounded lines, a bounded number of them, no long wait."""

from __future__ import annotations

import resource

import pytest

from flowkit.flow.limits import Limits
from tests.cli import kept

STEPS = 2_000


def cpu() -> float:
    """Seconds of CPU of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("narrow")
def test_a_loop_of_thousands_of_steps_is_shown_in_bounds(flowkit) -> None:
    kept.loop("r", STEPS, Limits(max_depth=2 * STEPS))
    began = cpu()
    explained = flowkit("runs", "explain", "r")
    assert cpu() - began < 0.5, "it asks for what is outstanding, not for all that was"
    assert explained.out.startswith("run r failed in node poll at ")
    assert "OSError: no route to host" in explained.out
    tree = flowkit("runs", "tree", "r").out.splitlines()
    assert (len(tree), max(map(len, tree)) <= 80) == (201, True)
    assert tree[0].startswith("✔ poll  succeeded"), "a chain is flat"
    assert tree[20] == f"… {STEPS + 1 - 200:,} more tasks: --all"
    assert tree[-1].startswith("✖ poll  failed  OSError: no route to host")
    assert len(flowkit("runs", "tree", "r", "--all").out.splitlines()) == STEPS + 1
    shown = flowkit("runs", "show", "r")
    assert len(shown.out.splitlines()) < 220
    assert max(map(len, shown.out.splitlines())) < 200
    assert f"--all shows the {STEPS + 1 - 200:,} tasks between them too" in shown.err
    whole = flowkit("runs", "show", "r", "--json").json
    assert (len(whole["tasks"]), whole["removed_tasks"]) == (STEPS + 1, 0)
    assert max(len(task["path"]) for task in whole["tasks"]) < 80
    drawn = flowkit("graph", "--run", "r", "--json").json
    assert [node["counts"] for node in drawn["nodes"] if node["name"] == "poll"] == [{"succeeded": STEPS, "failed": 1}]


@pytest.mark.usefixtures("narrow")
def test_what_was_removed_is_told(flowkit) -> None:
    kept.loop("r", 600, Limits(max_history=100))
    tree = flowkit("runs", "tree", "r").out.splitlines()
    removed = 601 - len(tree) + 1
    note = f"{removed} of its oldest tasks were removed while it ran (max_history)"
    assert (removed > 450, tree[1]) == (True, f"… {note}")
    assert note in flowkit("runs", "show", "r").err
    assert flowkit("runs", "show", "r", "--json").json["removed_tasks"] == removed
    assert f"{removed} of its oldest tasks were removed" in flowkit("graph", "--run", "r").err
    said = flowkit("runs", "rerun", "r", "--from", "0.0.0", "--no-wait")
    assert (said.code, note in said.err, said.err.count("\n")) == (4, True, 1)
