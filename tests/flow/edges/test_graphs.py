"""Drawings of what may happen and of what did, and that mermaid can read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.flow.edges.graph import Arrow, Graph, Line, Shape, Vertex, possible
from flowkit.flow.edges.happened import MOST, SEVERAL, Step, happened
from flowkit.flow.edges.mermaid import mermaid
from flowkit.flow.state import TaskStatus
from tests.flow.edges.grammar import read
from tests.flow.edges.test_check import node
from tests.flow.rows import Rows
from tests.flow.test_order import plans
from tests.flow.test_order import run as carry_out

DONE = "succeeded"


def arrows(graph: Graph) -> list[str]:
    """``a → b`` by names; a line that is no step is named."""
    read(mermaid(graph))
    names = {vertex.id: vertex.name for vertex in graph.vertices}
    return [
        f"{names[arrow.source]} → {names[arrow.target]}" + ("" if arrow.line is Line.STEP else f" ({arrow.line})")
        for arrow in graph.arrows
    ]


def counts(graph: Graph) -> dict[str, dict[str, int]]:
    return {vertex.name: dict(vertex.counts) for vertex in graph.vertices if vertex.counts}


# What may happen


def test_what_is_declared_is_drawn_and_what_is_not_is_said():
    nodes = {
        one.name: one
        for one in (
            node("a", "b", next=("b", "c"), others=True, on_error="mend"),
            node("b", next=()),
            node("c"),
            node("elsewhere", "a"),
        )
    }
    graph = possible(nodes, ["a"])
    assert arrows(graph) == [
        "a → b (plain)", "a → c (own)", "a → mend (on_error)", "a → … (open)", "c → … (open)",
    ]  # fmt: skip
    assert {vertex.name: vertex.shape for vertex in graph.vertices}["mend"] is Shape.ABSENT
    assert mermaid(graph) == (
        "flowchart TD\n"
        '    n0["a"]\n'
        '    n1["b"]\n'
        '    n2["c"]\n'
        '    n3["mend #40;nobody provides it#41;"]\n'
        '    n0more(["…"])\n'
        '    n2more(["…"])\n'
        "    n0 --> n1\n"
        "    n0 --> n2\n"
        "    n0 -.->|on error| n3\n"
        "    n0 -.-> n0more\n"
        "    n2 -.-> n2more\n"
        "    classDef absent stroke-dasharray:5 3\n"
        "    classDef open stroke-dasharray:5 3\n"
        "    class n3 absent\n"
        "    class n0more,n2more open"
    )


def test_a_loop_is_drawn_as_one():
    nodes = {one.name: one for one in (node("a", "b"), node("b", "a", "b"))}
    assert arrows(possible(nodes, ["a"])) == ["a → b (plain)", "b → a (plain)", "b → b (plain)"]


def test_nothing_is_a_drawing_too():
    assert mermaid(possible({}, [])) == "flowchart TD"


# What did


def wide(count: int) -> Iterator[Step]:
    yield Step("0", "discover", DONE)
    for number in range(count):
        yield Step(f"0.0.{number}", "measure", "failed" if number % 1_000 == 3 else DONE)
    yield Step("0.0.then", "summarize", "running")


CASES = {
    "a sequence": (
        [Step("0", "a", DONE), Step("0.0", "b", DONE), Step("0.0.0", "c", "queued")],
        ["r → a", "a → b", "b → c"],
    ),
    "two side by side": (
        [Step("0", "a", DONE), Step("0.0", "b", DONE), Step("0.1", "b", "failed"), Step("0.2", "c", DONE)],
        ["r → a", "a → b", "a → c"],
    ),
    "a Gather": (
        [Step("0", "a", DONE), Step("0.0.0", "b", DONE), Step("0.0.1", "c", DONE), Step("0.0.then", "d", DONE)],
        ["r → a", "a → b", "b → join", "a → c", "c → join", "join → d"],
    ),
    "a Gather under way": (
        [Step("0", "a", DONE), Step("0.0.0", "b", DONE), Step("0.0.0.0", "c", "running"), Step("0.0.1", "b", "held")],
        ["r → a", "a → b", "b → c", "c → join", "b → join"],
    ),
    "an empty Gather": (
        [Step("0", "a", DONE), Step("0.0.then", "b", DONE)],
        ["r → a", "a → join", "join → b"],
    ),
    "a Gather in a Gather": (
        [
            Step("0", "a", DONE), Step("0.0.0", "b", DONE), Step("0.0.0.0.0", "x", DONE), Step("0.0.0.0.1", "x", DONE),
            Step("0.0.0.0.then", "y", DONE), Step("0.0.then", "z", DONE), Step("0.0.then.0", "end", DONE),
        ],
        ["r → a", "a → b", "b → x", "x → join", "join → y", "y → join", "join → z", "z → end"],
    ),
    "a Gather in a Gather, under way": (
        [Step("0", "a", DONE), Step("0.0.0", "b", DONE), Step("0.0.0.0.0", "x", "running")],
        ["r → a", "a → b", "b → x", "x → join", "join → join"],
    ),
    "two Gathers of one task": (
        [Step("0", "a", DONE), Step("0.0.0", "b", DONE), Step("0.0.then", "c", DONE), Step("0.1.0", "b", DONE),
         Step("0.1.then", "d", DONE)],
        ["r → a", "a → b", "b → join", "join → c", "a → b", "b → join", "join → d"],
    ),
    "what stands in for a failure": (
        [Step("0", "a", "failed"), Step("0.0", "mend", DONE, handler=True), Step("0.0.0", "b", DONE)],
        ["r → a", "a → mend (on_error)", "mend → b"],
    ),
    "a wait": (
        [Step("0", "a", DONE), Step("0.0", "b", DONE, signal="go"), Step("0.0.0", "b", DONE)],
        ["r → a", "a → go", "go → b"],
    ),
    "the first one alone": ([Step("0", "a", "queued")], ["r → a"]),
    "no task at all": ([], []),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "drawn"), CASES.values(), ids=CASES)
def test_a_run(steps, drawn):
    assert arrows(happened("r", "running", steps)) == drawn


def test_ten_thousand_branches_are_one_place():
    graph = happened("r", "running", wide(10_000))
    assert arrows(graph) == ["r → discover", "discover → measure", "measure → join", "join → summarize"]
    assert counts(graph)["measure"] == {DONE: 9_990, "failed": 10}
    assert '    n2["measure<br/>10 failed, 9,990 succeeded"]' in mermaid(graph).splitlines()


def test_a_long_loop_is_drawn_by_its_nodes():
    graph = happened("r", DONE, [Step("0" + ".0" * number, "ab"[number % 2], DONE) for number in range(900)])
    assert arrows(graph) == ["r → a", "a → b", "b → a"]
    assert counts(graph)["a"] == {DONE: 450}


def test_thousands_of_signals_are_one_wait():
    steps = [Step("0", "a", DONE), *(Step(f"0.{n}", "b", "waiting", signal=f"order {n}") for n in range(3_000))]
    assert arrows(happened("r", "running", steps)) == ["r → a", f"a → {SEVERAL}"]


def test_thousands_of_gathers_are_few_places():
    steps = [Step("0", "a", DONE)]
    for number in range(3_000):
        steps += [Step(f"0.{number}.0", "b", DONE), Step(f"0.{number}.then", "c", DONE)]
    assert arrows(happened("r", "running", steps)) == ["r → a", "a → b", "b → join", "join → c"]


def test_runs_that_were_begun_beside():
    graph = happened("r", DONE, [Step("0", "a", DONE)], {("bill", DONE): 2, ("bill", "failed"): 1, ("mail", DONE): 1})
    assert arrows(graph) == ["r → a", "r → bill (detached)", "r → mail (detached)"]
    assert counts(graph)["bill"] == {DONE: 2, "failed": 1}


@settings(max_examples=60, deadline=None)
@given(plans(failures=True), st.data())
def test_any_run_is_drawn_whole(plan, data):
    rows: Rows = carry_out(plan, data.draw, batches=True, duplicates=False)
    steps = [Step(task.path, task.node, task.status, task.signal, task.handler) for task in rows.tasks.values()]
    graph = happened("r", rows.runs["r"].status, steps)
    vertices, drawn = read(mermaid(graph))
    assert len(vertices) <= MOST + 1
    assert sum(vertex.counts.total() for vertex in graph.vertices if vertex.shape is Shape.TASK) == len(steps)
    reached, waiting = {"run"}, ["run"]
    while waiting:
        one = waiting.pop()
        following = {target for source, target in drawn if source == one} - reached
        reached |= following
        waiting += following
    assert reached == set(vertices), "nothing hangs in the air"
    assert {status.value for status in TaskStatus} >= {
        status for vertex in graph.vertices[1:] for status in vertex.counts
    }


# Text


@given(st.text(min_size=1), st.sampled_from(list(Shape)))
def test_odd_names_are_spelled_so_that_mermaid_reads_them(name, shape):
    vertices = [Vertex("n0", shape, name, Counter({"failed": 1})), Vertex("n1", shape, "a")]
    read(mermaid(Graph(vertices, [Arrow("n0", "n1", line) for line in Line])))


def test_signs_of_mermaid_and_html():
    graph = Graph([Vertex("n0", Shape.WAIT, 'a"]; <b>&#x\n\x1b`')], [])
    text = "wait: a#34;#93;#59; #60;b#62;#38;#35;x  #96;"
    assert mermaid(graph).splitlines()[1] == f'    n0{{{{"{text}"}}}}'
