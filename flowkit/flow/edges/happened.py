"""The graph of what did happen in a run: tasks that stand alike are folded into one vertex with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

from flowkit.flow import paths
from flowkit.flow.edges.graph import Arrow, Graph, Line, Shape, Vertex

MOST = 150  # vertices; of a run with more places than that each node is drawn once
SEVERAL = "several signals"
RUN = "run"


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a run."""

    path: str
    node: str
    status: str
    signal: str | None = None  # that it waits for, or waited
    handler: bool = False  # it stands in for a failed task
    unfolded: str | None = None  # its path before it was folded
    scope: str | None = None  # path of the scope that it stands in; None: its path tells


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a task stands."""

    opener: str | None  # path of the task that it follows, or that opened its Gather; None: the first one
    gather: str | None = None  # path of the Gather that it is a branch of, or the continuation
    joins: bool = False  # it is the continuation
    inside: str | None = None  # path of the Gather that its value is for


def happened(
    run_id: str, status: str, steps: Iterable[Step], detached: Mapping[tuple[str, str], int] | None = None
) -> Graph:
    """Draw a run.

    Args:
        run_id: of the run.
        status: of the run.
        steps: all its tasks.
        detached: how many runs it has begun beside, by node and status.
    """
    ordered = sorted(steps, key=lambda step: paths.order(step.path))
    spots = _spots(ordered)
    graph = _draw(ordered, spots, by_node=False)
    if len(graph.vertices) > MOST:
        graph = _draw(ordered, spots, by_node=True)
    graph.vertices.insert(0, Vertex(RUN, Shape.RUN, run_id, Counter([status])))
    beside: dict[str, Vertex] = {}
    for (node, how), count in (detached or {}).items():
        vertex = beside.setdefault(node, Vertex(f"d{len(beside)}", Shape.DETACHED, node))
        vertex.counts[how] += count
    graph.vertices.extend(beside.values())
    graph.arrows.extend(Arrow(RUN, vertex.id, Line.DETACHED) for vertex in beside.values())
    return graph


def _spots(ordered: list[Step]) -> dict[str, _Spot]:
    """By path. Whoever comes first in a path comes first here too."""
    spots: dict[str, _Spot] = {}
    for step in ordered:
        above, _, last = (step.unfolded or step.path).rpartition(".")
        if not above:
            spots[step.path] = _Spot(None)
        elif above in spots:
            spots[step.path] = _Spot(above, inside=spots[above].inside)
        elif step.scope not in (None, above, step.path) and last != paths.THEN:
            spots[step.path] = _Spot(None)  # what it follows was removed
        else:  # nobody stands there: it is the path of a Gather
            opener = above.rpartition(".")[0]
            joins = last == paths.THEN
            around = spots[opener].inside if opener in spots else None
            spots[step.path] = _Spot(opener, above, joins, around if joins else above)
    return spots


def _draw(ordered: list[Step], spots: dict[str, _Spot], *, by_node: bool) -> Graph:
    places, arrows = _Places(by_node=by_node), dict[Arrow, None]()
    at: dict[str, str] = {}  # path of a task, or of a Gather -> id of its vertex
    followed = {spot.opener for spot in spots.values()}
    for step in ordered:
        spot = spots[step.path]
        before = RUN if spot.opener is None else at.get(spot.opener, RUN)
        if spot.gather is not None and spot.gather not in at:
            at[spot.gather] = places.join(before, spot.gather)
            if spot.joins:  # a Gather of nothing
                arrows[Arrow(before, at[spot.gather], Line.STEP)] = None
        join = None if spot.gather is None else at[spot.gather]
        before = join if spot.joins and join is not None else before
        at[step.path] = places.task(before, join, step)
        arrows[Arrow(before, at[step.path], Line.ON_ERROR if step.handler else Line.STEP)] = None
        if spot.inside is not None and step.path not in followed:
            arrows[Arrow(at[step.path], at[spot.inside], Line.STEP)] = None
    continued = {arrow.source for arrow in arrows}
    for spot in spots.values():  # Gathers that have not come to their continuation, in a branch of another one
        around = spots[spot.opener].inside if spot.opener in spots else None
        if spot.gather is not None and around is not None and at[spot.gather] not in continued:
            arrows[Arrow(at[spot.gather], at[around], Line.STEP)] = None
    return Graph(places.vertices, list(arrows))


class _Places:
    """Vertices by what makes tasks stand alike: what they follow and what they are, or just what they are."""

    def __init__(self, *, by_node: bool) -> None:
        self._by_node = by_node
        self._known: dict[Hashable, int] = {}
        self.vertices: list[Vertex] = []

    def task(self, before: str, join: str | None, step: Step) -> str:
        what = (step.node, step.signal is not None, step.handler)
        key = what if self._by_node else (*what, step.signal, before, join)
        shape = Shape.TASK if step.signal is None else Shape.WAIT
        vertex = self._vertex(key, shape, step.signal or step.node)
        if vertex.shape is Shape.WAIT and vertex.name != step.signal:
            self.vertices[self._known[key]] = vertex = replace(vertex, name=SEVERAL)
        vertex.counts[step.status] += 1
        return vertex.id

    def join(self, opener: str, gather: str) -> str:
        number = None if self._by_node else gather.rpartition(".")[2]
        return self._vertex(("join", opener, number), Shape.JOIN, "join").id

    def _vertex(self, key: Hashable, shape: Shape, name: str) -> Vertex:
        if key not in self._known:
            self._known[key] = len(self.vertices)
            self.vertices.append(Vertex(f"n{len(self.vertices)}", shape, name))
        return self.vertices[self._known[key]]
