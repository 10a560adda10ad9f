"""The samples, and the examples of the original API unchanged, in all ways to run them and on both brokers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.processes import WORKERS

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNNER = "6f1c1c1e-0000-4000-8000-00000000000a"

# name, inputs, outputs, what it logs; None as outputs: the run fails, for its downstream nodes do not exist
CASES = [
    ("quick_start", {"a": 1, "b": 2}, {"result": 3}, "Result: 3"),
    ("complete_example", {"items": []}, {}, "No items to process"),
    ("error_handling", {"a": 6, "b": 3}, {"result": 2.0}, None),
    ("logging_with_context", {"user_id": 7}, {"logged": True}, "User logged in"),
]


@pytest.mark.parametrize(("name", "inputs", "outputs", "line"), CASES)
async def test_one_shot(shell, name, inputs, outputs, line):
    (shell.folder / "input.json").write_text(json.dumps(inputs))
    script = await shell.python(str(EXAMPLES / f"{name}.py"), "input.json", RUNNER, "-", name)
    code, out = await script.result()
    told = json.loads(out)
    assert (code, told["status"], told["outputs"]) == (0, "succeeded", outputs)
    assert line is None or line in script.said


@pytest.mark.parametrize(("name", "inputs", "outputs", "line"), CASES)
async def test_embedded(shell, name, inputs, outputs, line):
    code, out, said = await shell.call("run", name, "--nodes", str(EXAMPLES), "--input", json.dumps(inputs))
    assert (code, json.loads(out)) == (0, outputs), said
    assert line is None or line in said


async def test_all_examples_in_one_worker(shell):
    await shell.coordinator()
    await shell.worker(*(str(EXAMPLES / f"{name}.py") for name, *_ in CASES))
    for name, inputs, outputs, line in CASES:
        code, out, said = await shell.call("start", name, "--input", json.dumps(inputs), "--wait")
        run_id, _, printed = out.partition("\n")
        assert (code, json.loads(printed)) == (0, outputs), said
        code, out, _ = await shell.call("logs", run_id)
        assert code == 0
        assert line is None or line in out


async def test_an_unknown_downstream_node_fails_flowkit_run_and_says_which(shell):
    inputs = json.dumps({"items": [1, 2]})
    code, out, said = await shell.call("run", "complete_example", "--nodes", str(EXAMPLES), "--input", inputs)
    assert (code, out) == (1, "")
    assert "report" in said
    assert "NodeNotFound" in said
    assert "Traceback" not in said


async def test_a_raise_fails_the_run_with_its_reason(shell):
    code, _, said = await shell.call("run", "error_handling", "--nodes", str(EXAMPLES), "-F", "a=1")
    assert code == 1
    assert "KeyError" in said


async def test_the_census_embedded(shell):
    code, out, said = await shell.call("run", "discover", "-F", f"directory={WORKERS}")
    assert code == 0, said
    assert json.loads(out)["files"] == len(list(WORKERS.glob("*.py")))


async def test_a_run_is_kept_where_it_is_told_and_nothing_else_is_written(shell):
    url = f"sqlite:///{shell.folder}/kept.db"
    assert (await shell.call("run", "add", "-F", "a=1", "-F", "b=2", "--store", url))[0] == 0
    code, out, _ = await shell.call("runs", "list", "--json", "--store", url)
    assert (code, [run["status"] for run in json.loads(out)["runs"]]) == (0, ["succeeded"])
    assert not (shell.folder / ".flowkit").exists()
