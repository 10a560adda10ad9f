"""``flowkit run`` and what it says of mistakes."""

from __future__ import annotations

import io
import re
import sys

import pytest

NODES = {
    "nonode": "x = 1\n",
    "nomain": "from flowkit.node import Node\nnode = Node()\nnode.run()\n",
    "notasync": "from flowkit.node import Node\nnode = Node()\ndef main(): ...\nnode.register_main(main)\n",
    "broken": "def (\n",
    "typed": "from pydantic import BaseModel\nfrom flowkit import Node\nnode = Node('typed')\n"
    "class In(BaseModel):\n    a: int\n"
    "@node.main\nasync def main(given: In):\n    return [], {'a': given.a}, ''\nnode.run()\n",
    "wide": "from flowkit import Node, Send\nnode = Node()\n"
    "@node.main\nasync def main():\n    return [Send('few', {'n': n}) for n in range(9)], {}, ''\nnode.run()\n",
    "few": "import asyncio\nfrom flowkit import Node\nnode = Node(limit=2)\nat_once = most = 0\n"
    "@node.main\nasync def main():\n    global at_once, most\n    at_once += 1\n    most = max(most, at_once)\n"
    "    await asyncio.sleep(0.01)\n    at_once -= 1\n    return [], {'most': most}, ''\nnode.run()\n",
    "nowhere": "from flowkit.node import Node\nnode = Node()\n"
    "async def main():\n    return ['absent'], {}, ''\nnode.register_main(main)\nnode.run()\n",
}


def test_the_first_tasks_of_a_node_keep_to_its_limit_too(flowkit, folder):
    for name in ("wide", "few"):
        (folder / "workers" / f"{name}.py").write_text(NODES[name])
    said = flowkit("run", "wide")
    assert said.code == 0
    assert max(one["most"] for one in said.json["results"]) == 2


def test_outputs_that_are_too_large_for_a_message_are_printed_all_the_same(flowkit, folder):
    head = "from flowkit import Node, Send\nnode = Node()\n@node.main\nasync def main():\n    return "
    for name, returned in (
        ("two", "[Send('large'), Send('large')], {}, ''"),
        ("large", "[], {'x': 'x' * 9_000_000}, ''"),
    ):
        (folder / "workers" / f"{name}.py").write_text(f"{head}{returned}\nnode.run()\n")
    said = flowkit("run", "two")
    assert (said.code, [len(one["x"]) for one in said.json["results"]]) == (0, [9_000_000] * 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-F", "a=1", "-F", "b=2"),
        ("--input", '{"a": 1, "b": 2}'),
        ("-i", "@in.json"),
        ("-i", '{"a": 1, "b": 9}', "-F", "b=2"),
    ],
)
def test_outputs_on_stdout_and_logs_on_stderr(flowkit, folder, arguments):
    (folder / "in.json").write_text('{"a": 1, "b": 2}')
    said = flowkit("run", "add", *arguments)
    assert (said.code, said.json) == (0, {"sum": 3})
    assert "INFO     add  adding" in said.err
    assert "\x1b" not in said.err + said.out


def test_inputs_from_stdin(flowkit, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": "x", "b": "y"}'))
    assert flowkit("run", "add", "--input", "-").json == {"sum": "xy"}


def test_values_of_fields_are_json_where_they_parse_else_text(flowkit):
    assert flowkit("run", "add", "-F", 'a=["x"]', "-F", "b=[1]").json == {"sum": ["x", 1]}
    assert flowkit("run", "add", "-F", "a=NaN", "-F", "b=x=y").json == {"sum": "NaNx=y"}


def test_quiet_leaves_the_logs_out_and_verbose_lists_the_nodes(flowkit):
    assert flowkit("run", "add", "-q", "-F", "a=1", "-F", "b=2").err == ""
    assert "nodes in workers: add" in flowkit("run", "add", "-v", "-F", "a=1", "-F", "b=2").err


def test_it_ignores_the_addresses_of_the_environment_and_keeps_a_store_it_was_told_of(flowkit, folder, monkeypatch):
    monkeypatch.setenv("FLOWKIT_BROKER_URL", "amqp://nowhere.invalid/")
    monkeypatch.setenv("FLOWKIT_STORE_URL", "postgresql://nowhere.invalid/x")
    assert flowkit("run", "add", "-F", "a=1", "-F", "b=2").code == 0
    assert not (folder / ".flowkit").exists()
    assert flowkit("run", "add", "-F", "a=1", "-F", "b=2", "--store", "sqlite:///kept.db").code == 0
    (kept,) = flowkit("runs", "list", "--json", "--store", "sqlite:///kept.db").json["runs"]
    assert (kept["node"], kept["status"]) == ("add", "succeeded")


def test_a_failed_run_shows_the_authors_traceback_and_exits_1(flowkit):
    said = flowkit("run", "add", "-F", "a=1")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == "flowkit: the run failed: KeyError: 'b'"
    assert re.search(r'workers/add.py", line \d+, in main', said.err)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["absent"], 2, "node 'absent': no file absent.py in workers (it has add,"),
        (["../../etc/passwd"], 2, "'../../etc/passwd' cannot be the name of a node"),
        (["nonode"], 2, "holds no Node"),
        (["nomain"], 2, "registers no main"),
        (["notasync"], 2, "main is not async; write 'async def main():'"),
        (["broken"], 2, "line 1: SyntaxError"),
        (["add", "--nodes", "nowhere"], 2, "nodes folder nowhere: no such directory"),
        (["add", "--input", "{"], 2, "--input: no JSON (Expecting property name"),
        (["add", "--input", "[1]"], 2, "expected a JSON object such as '{\"a\": 1}', got an array"),
        (["add", "--input", "@none.json"], 2, "--input @none.json: cannot be read: No such file"),
        (["add", "-F", "a"], 2, "-F 'a': expected KEY=VALUE"),
        (["typed", "-F", "a=x"], 1, "inputs do not fit node 'typed': a: Input should be a valid integer"),
        (["add", "--input", '{"a": [1, 18446744073709551616]}'], 2, "--input: a[1]: an integer over 64 bits does not"),
        (["add", "--input", '{"a": ' + "9" * 5_000 + "}"], 2, "--input: a: an integer over 64 bits does not fit JSON"),
        (["add", "--input", '{"a": 1e400}'], 2, "--input: a: 1e400 is more than a 64-bit float can hold"),
        (["add", "--input", '{"a": NaN}'], 2, "--input: a: NaN is no JSON number"),
        (["add", "--input", '{"a": 1, "b": 2, "a": 3}'], 2, "--input: key 'a' stands there twice"),
        (["add", "--input", "[" * 900 + "1e999" + "]" * 900], 2, "--input: [0][0]"),
        (["add", "-F", "a=1e400"], 2, "-F a: 1e400 is more than a 64-bit float can hold"),
        (["add", "-F", "a=99999999999999999999"], 2, "-F a: an integer over 64 bits does not fit JSON here"),
        (["add", "-F", 'a={"b": 1, "b": 2}'], 2, "-F a: key 'b' stands there twice"),
        (["add", "-F", "a=1", "-F", "b=2", "-F", "a=3"], 2, "-F a=… is there twice"),
        (["add", "-F", "a=\udcff"], 2, "inputs.a: text with a lone surrogate cannot be UTF-8"),
        (["add", "-F", "a=" + "[" * 300 + "]" * 300], 2, "nested deeper than 190 levels"),
        (["nowhere"], 1, "node 'absent': no file absent.py in workers"),
    ],
)
def test_each_mistake_is_one_line_that_says_what_next(flowkit, folder, arguments, code, says):
    for name, text in NODES.items():
        (folder / "workers" / f"{name}.py").write_text(text)
    said = flowkit("run", *arguments)
    assert (said.code, said.out) == (code, "")
    assert says in said.err
    assert said.err.count("\n") == 1, said.err


DETACHED = """
from flowkit import Node, Send

first = Node("order")
second = Node("invoice")

@first.main
async def order():
    return [Send("invoice", {{"n": 7}}, detached=True, delay={delay})], {{"ok": True}}, "ordered"

@second.main
async def invoice():
    {body}

first.run()
"""


@pytest.mark.parametrize(
    ("delay", "body", "says"),
    [
        (0.2, 'import pathlib; pathlib.Path("paid").touch(); return [], {}, "paid"', "detached runs go on: invoice"),
        (0, 'raise ValueError("no paper")', "failed: invoice: ValueError: no paper"),
    ],
)
def test_detached_runs_end_before_the_process_does(flowkit, folder, delay, body, says):
    (folder / "workers" / "order.py").write_text(DETACHED.format(delay=delay, body=body))
    (folder / "workers" / "invoice.py").write_text("from order import second as node\n")
    said = flowkit("run", "order")
    assert (said.code, said.json) == (0, {"ok": True}), said.err
    assert says in said.err
    assert (folder / "paid").exists() == (delay > 0)
