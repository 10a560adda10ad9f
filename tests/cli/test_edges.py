"""``flowkit check`` and ``flowkit graph``, over files, over announcements, and over a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from flowkit.wire import messages as wire
from tests.cli import kept
from tests.cli.test_runs_rerun import order
from tests.flow.edges.grammar import read

HEAD = """
from typing import Literal, Never
from pydantic import BaseModel, ConfigDict
from flowkit import Gather, Node, Send
"""

SHOP = {
    "order": """
class Order(BaseModel):
    number: str
    amount: float

node = Node("order", on_error="complain")

@node.main
async def main(order: Order) -> tuple[list[Literal["pay"]], Order, str]:
    return ["pay"], order, "ordered"
""",
    "pay": """
class Payment(BaseModel):
    number: str
    amount: float

node = Node("pay")

@node.main
async def main(payment: Payment) -> tuple[list[Never], Payment, str]:
    return [], payment, "paid"
""",
    "complain": """
class Failed(BaseModel):
    error: dict[str, str]
    inputs: dict[str, object]

node = Node("complain")

@node.main
async def main(failed: Failed) -> tuple[list[Never], dict, str]:
    return [], {}, "complained"
""",
}


@pytest.fixture
def shop(folder):
    """A folder of nodes whose data fits; what is imported from it is forgotten afterwards."""
    before, path = set(sys.modules), [*sys.path]
    (folder / "workers" / "add.py").unlink()
    for name, text in SHOP.items():
        (folder / "workers" / f"{name}.py").write_text(HEAD + text)
    yield folder / "workers"
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_what_fits_is_one_line(flowkit, shop):
    said = flowkit("check")
    assert (said.code, said.out, said.err) == (0, "", "3 nodes, 2 edges: 2 fit, nothing that cannot fit\n")


MISTAKES = [
    ("pay.py", "    amount: float", "    amount: list[float]", 1,
     "✖ order → pay  amount: order sends number, pay takes array"),
    ("pay.py", "    amount: float", "    amount: float\n    iban: str", 1,
     "✖ order → pay  iban: pay requires it (string), order never sends it"),
    ("pay.py", "    amount: float", "    model_config = ConfigDict(extra='forbid')", 1,
     "✖ order → pay  amount: order sends it always, pay does not take it"),
    ("pay.py", "    number: str", "    number: int", 0,
     "? order → pay  number: order sends string, pay takes integer (fits only if it is left out, empty, or converted)"),
    ("order.py", 'Literal["pay"]', 'Literal["pai"]', 1, "✖ order → pai  no file provides node 'pai'; there is pay"),
    ("order.py", 'on_error="complain"', 'on_error="complian"', 1,
     "✖ order → complian (on error)  no file provides node 'complian'; there is complain"),
    ("complain.py", "    error: dict[str, str]", "    error: str", 1,
     "✖ order → complain (on error)  error: FlowKit sends object, complain takes string"),
    ("complain.py", "    error: dict[str, str]", "    reason: str", 1,
     "✖ order → complain (on error)  reason: complain requires it (string), FlowKit never sends it"),
    ("pay.py", "node = Node", "nodee = Noode", 1, "pay.py, line 10: NameError: name 'Noode' is not defined"),
    ("order.py", 'tuple[list[Literal["pay"]], Order, str]', "dict", 0,
     "? order  main is annotated to return dict; expected tuple[list[…], outputs, str]"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "code", "says"), MISTAKES, ids=[row[4] for row in MISTAKES])
def test_each_mistake_is_found_and_named(flowkit, shop, file, old, new, code, says):
    change(shop / file, old, new)
    said = flowkit("check")
    assert (said.code, "Traceback" in said.err) == (code, False), said.err
    assert says in said.out


def test_what_is_not_declared_is_said_and_is_no_error(flowkit, shop):
    change(shop / "order.py", 'tuple[list[Literal["pay"]], Order, str]', "tuple[list[str], dict, str]")
    said = flowkit("check")
    assert (said.code, said.out) == (0, "node   not declared\norder  outputs, next\n")
    assert said.err == "3 nodes, 1 edge: 1 fit, nothing that cannot fit\n"


def test_as_json(flowkit, shop):
    change(shop / "pay.py", "    amount: float", "    amount: list[float]")
    said = flowkit("check", "--json")
    assert said.code == 1
    edge, other = said.json["edges"]
    assert edge == {
        "from": "order", "to": "pay", "kind": "plain", "verdict": "cannot", "field": "amount", "sent": "number",
        "taken": "array", "text": "amount: order sends number, pay takes array",
    }  # fmt: skip
    assert (other["kind"], other["verdict"], other["field"]) == ("on_error", "fits", None)
    assert said.json["nodes"][0] == {"node": "complain", "not_declared": [], "problems": []}


def test_only_what_may_follow_from_the_nodes_that_were_named(flowkit, shop):
    change(shop / "pay.py", "    amount: float", "    amount: list[float]")
    (shop / "broken.py").write_text("1 / 0")
    assert flowkit("check", "complain", "pay").code == 0
    assert flowkit("check", "order").code == 1
    assert "ZeroDivisionError" not in flowkit("check", "order").out
    assert "ZeroDivisionError" in flowkit("check", "broken").out
    said = flowkit("check", "ordre")
    assert (said.code, said.err) == (4, "flowkit: no node 'ordre'. workers has broken, complain, order, pay.\n")


def test_files_elsewhere_and_helpers(flowkit, shop, folder):
    (shop / "helpers.py").write_text("VALUE = 1\nprint('imported')")
    (folder / "other.py").write_text(HEAD + SHOP["order"].replace('"order"', '"other"').replace("float", "list[str]"))
    said = flowkit("check", "other.py")
    assert (said.code, "imported" in said.out) == (1, False), "what files print is no data of ours"
    assert "✖ other → pay  amount: other sends array, pay takes number" in said.out
    assert flowkit("check", "absent.py").code == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--nodes", "nowhere"), 2, "nodes folder nowhere: no such directory"),
        (("--store", "sqlite:///x.db"), 2, "--store goes with --announced"),
        (("--announced",), 3, "there is no such file; a coordinator makes it"),
        (("--announced", "--nodes", "workers"), 2, "--announced and --nodes contradict"),
        (("a b",), 4, "no node 'a b'"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "graph"])
def test_wrong_use(flowkit, shop, verb, words, code, says):
    said = flowkit(verb, *words)
    assert (said.code, said.out, says in said.err) == (code, "", True), said.err


def test_an_empty_folder(flowkit, folder):
    (folder / "workers" / "add.py").unlink()
    said = flowkit("check")
    assert (said.code, said.err) == (0, "No nodes: flowkit new NAME, or flowkit worker --node NAME for --announced\n")
    assert flowkit("graph").out == "flowchart TD\n"


# Announced


def announce(*nodes: wire.NodeInfo) -> None:
    told = wire.Worker(worker="w", nodes=nodes)
    kept.transact(lambda transaction: transaction.record_workers([told], time.time()))


def test_announced_nodes(flowkit):
    number = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    text = {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}
    announce(
        wire.NodeInfo(name="a", schemas={"outputs": number}, next=("b", "c"), plain=("b",), others=False),
        wire.NodeInfo(name="b", schemas={"inputs": text}),
    )
    said = flowkit("check", "--announced")
    assert said.code == 1
    assert said.out.splitlines()[:2] == [
        "✖ a → b  n: a sends number, b takes string",
        "? a → c  no worker has announced node 'c'",
    ]
    assert flowkit("check", "--announced", "b").code == 0
    assert "n0 --> n1" in flowkit("graph", "a", "--announced").out


# Drawings


def test_the_possible_graph(flowkit, shop):
    said = flowkit("graph", "order")
    assert said.code == 0
    assert read(said.out.rstrip("\n")) == (["n0", "n1", "n2"], [("n0", "n1"), ("n0", "n2")])
    drawn = flowkit("graph", "order", "--json").json
    assert [(node["id"], node["kind"], node["name"]) for node in drawn["nodes"]] == [
        ("n0", "task", "order"), ("n1", "task", "pay"), ("n2", "task", "complain"),
    ]  # fmt: skip
    assert drawn["edges"][1] == {"from": "n0", "to": "n2", "kind": "on_error"}


def test_a_file_that_cannot_be_loaded_is_said_beside_the_drawing(flowkit, shop):
    (shop / "pay.py").write_text("1 / 0")
    said = flowkit("graph", "order")
    assert (said.code, "ZeroDivisionError" in said.err) == (0, True)
    assert "pay #40;nobody provides it#41;" in said.out


def test_what_did_happen_in_a_run(flowkit):
    order("r 1".replace(" ", "-"))
    said = flowkit("graph", "--run", "r-1")
    assert said.code == 0, said.err
    read(said.out.rstrip("\n"))
    drawn = flowkit("graph", "--run", "r-1", "--json").json
    names = {node["id"]: node["name"] for node in drawn["nodes"]}
    assert [f"{names[edge['from']]} → {names[edge['to']]}" for edge in drawn["edges"]] == [
        "r-1 → order", "order → pack", "pack → join", "join → ship", "ship → bill",
    ]  # fmt: skip
    assert {node["name"]: node["counts"] for node in drawn["nodes"]}["pack"] == {"succeeded": 2}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--run", "ghost"), 4, "no run 'ghost'"),
        (("--run", "r", "order"), 2, "--run draws one run from the store"),
        (("--run", "r", "--nodes", "workers"), 2, "--run draws one run from the store"),
        (("--run", "r", "--announced"), 2, "--run draws one run from the store"),
        (("--run", ""), 4, "no run ''"),
    ],
)
def test_which_run(flowkit, words, code, says):
    order("r")
    said = flowkit("graph", *words)
    assert (said.code, said.out, says in said.err) == (code, "", True), said.err
