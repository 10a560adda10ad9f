"""Graphs to be drawn: of what may happen, from what nodes declare. What did happen is in ``happened``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from flowkit.flow.edges.check import Kind, Nodes, edges_of, reached


class Shape(StrEnum):
    """What a vertex stands for."""

    TASK = "task"  # of a node; in a graph of what may happen, the node
    ABSENT = "absent"  # a node that nobody provides
    OPEN = "open"  # whatever else may follow
    WAIT = "wait"  # for a signal
    JOIN = "join"  # of the branches of a Gather
    RUN = "run"
    DETACHED = "detached"  # runs that were begun beside


class Line(StrEnum):
    """How one vertex follows another."""

    PLAIN = "plain"
    OWN = "own"
    ON_ERROR = "on_error"
    OPEN = "open"
    STEP = "step"  # it did
    DETACHED = "detached"


@dataclass(frozen=True, slots=True)
class Vertex:
    """One place of a drawing. ``counts``: how many tasks stand there, by status."""

    id: str
    shape: Shape
    name: str
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one vertex to another, by their ids."""

    source: str
    target: str
    line: Line


@dataclass(frozen=True, slots=True)
class Graph:
    """What is drawn."""

    vertices: list[Vertex]
    arrows: list[Arrow]


_LINES = {Kind.PLAIN: Line.PLAIN, Kind.OWN: Line.OWN, Kind.ON_ERROR: Line.ON_ERROR}


def possible(nodes: Nodes, starts: Iterable[str]) -> Graph:
    """What may follow from some nodes, as far as it is declared.

    Args:
        nodes: all that are known, by name.
        starts: names of those to begin with.
    """
    names = reached(nodes, starts)
    ids = {name: f"n{number}" for number, name in enumerate(names)}
    graph = Graph([Vertex(ids[name], Shape.TASK if name in nodes else Shape.ABSENT, name) for name in names], [])
    for name in filter(nodes.__contains__, names):
        node = nodes[name]
        graph.arrows.extend(Arrow(ids[name], ids[edge.target], _LINES[edge.kind]) for edge in edges_of(node))
        if node.next is None or node.others:
            graph.vertices.append(Vertex(f"{ids[name]}more", Shape.OPEN, "…"))
            graph.arrows.append(Arrow(ids[name], f"{ids[name]}more", Line.OPEN))
    return graph
