"""Which edges of a workflow carry data that cannot fit, as far as nodes have declared what they take and return."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from flowkit.flow.edges.fits import STRICT, SURE, Clash, clash
from flowkit.flow.edges.words import NOTHING
from flowkit.wire.messages import NodeInfo

Nodes = Mapping[str, NodeInfo]


class Kind(StrEnum):
    """How one node follows another."""

    PLAIN = "plain"  # named plainly: its inputs are the outputs
    OWN = "own"  # by Send, Gather or Wait: inputs of its own, which no annotation tells of
    ON_ERROR = "on_error"  # it stands in for what failed


class Verdict(StrEnum):
    """What is to be said of an edge."""

    FITS = "fits"  # nothing speaks against it
    UNKNOWN = "unknown"  # not declared what is sent, or what is taken
    DOUBTFUL = "doubtful"  # it fits only where something is left out, empty, or converted
    CANNOT = "cannot"  # no data fits


@dataclass(frozen=True, slots=True)
class Edge:
    """From one node to another."""

    source: str
    target: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Checked:
    """An edge and what was found. ``text`` is for people; ``field`` is the path to what does not fit."""

    edge: Edge
    verdict: Verdict
    text: str = ""
    field: str = ""
    sent: str = ""
    taken: str = ""


_TEXT = {"type": "string"}
FAILURE: dict[str, Any] = {  # what a node that stands in for a failed task gets
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": dict.fromkeys(("type", "message", "node", "task_id", "traceback"), _TEXT),
            "required": ["type", "message", "node", "task_id"],
            "additionalProperties": False,
        },
        "inputs": {"type": "object"},
    },
    "required": ["error", "inputs"],
    "additionalProperties": False,
}


def edges_of(node: NodeInfo) -> Iterator[Edge]:
    """What follows a node, as far as it is declared; each name once, its failures apart."""
    plain = dict.fromkeys(node.plain)
    for name in dict.fromkeys([*plain, *(node.next or ())]):
        yield Edge(node.name, name, Kind.PLAIN if name in plain else Kind.OWN)
    if node.on_error is not None:
        yield Edge(node.name, node.on_error, Kind.ON_ERROR)


def reached(nodes: Nodes, starts: Iterable[str]) -> list[str]:
    """Names of what may follow from some nodes, these included, whether or not they are there."""
    found = dict.fromkeys(starts)
    waiting = list(found)
    while waiting:
        name = waiting.pop(0)
        following = [edge.target for edge in edges_of(nodes[name])] if name in nodes else []
        waiting += [target for target in following if target not in found]
        found.update(dict.fromkeys(following))
    return list(found)


def check(nodes: Nodes, broken: Collection[str] = (), *, complete: bool = True) -> list[Checked]:
    """Check every edge of some nodes.

    Args:
        nodes: by name.
        broken: names of others, of which nothing can be known.
        complete: there are no others; else a name that is not among them is doubtful, and no more.
    """
    return [_check(edge, nodes, broken, complete) for node in nodes.values() for edge in edges_of(node)]


def not_declared(node: NodeInfo) -> list[str]:
    """What a node leaves open: ``inputs``, ``outputs`` (which matter to nobody when nothing follows), ``next``."""
    schemas, following = node.schemas or {}, node.next is not None and not node.others
    known = {"inputs": "inputs" in schemas, "outputs": "outputs" in schemas or (following and not node.next)}
    known["next"] = following
    return [what for what, said in known.items() if not said]


def _check(edge: Edge, nodes: Nodes, broken: Collection[str], complete: bool) -> Checked:  # noqa: FBT001 - one call
    target = nodes.get(edge.target)
    if target is None:
        return _absent(edge, nodes, broken, complete)
    taken = (target.schemas or {}).get("inputs")
    sent = FAILURE if edge.kind is Kind.ON_ERROR else (nodes[edge.source].schemas or {}).get("outputs")
    if edge.kind is Kind.OWN or sent is None or taken is None:
        return Checked(edge, Verdict.UNKNOWN)
    if (found := clash(sent, taken, SURE)) is not None:
        return _clashing(edge, Verdict.CANNOT, found, "always")
    if (found := clash(sent, taken, STRICT)) is not None:
        return _clashing(edge, Verdict.DOUBTFUL, found, "perhaps")
    return Checked(edge, Verdict.FITS)


def _absent(edge: Edge, nodes: Nodes, broken: Collection[str], complete: bool) -> Checked:  # noqa: FBT001 - one call
    if edge.target in broken:
        return Checked(edge, Verdict.UNKNOWN, f"the file of {edge.target} cannot be loaded")
    near = get_close_matches(edge.target, [*nodes, *broken], n=3)
    hint = f"; there is {' and '.join(near)}" if near else ""
    if complete:
        return Checked(edge, Verdict.CANNOT, f"no file provides node {edge.target!r}{hint}")
    return Checked(edge, Verdict.DOUBTFUL, f"no worker has announced node {edge.target!r}{hint}")


def _clashing(edge: Edge, verdict: Verdict, found: Clash, how: str) -> Checked:
    source = "FlowKit" if edge.kind is Kind.ON_ERROR else edge.source
    if found.sent == NOTHING:
        text = f"{edge.target} requires it ({found.taken}), {source} never sends it"
    elif found.taken == NOTHING:
        text = f"{source} sends it {how}, {edge.target} does not take it"
    else:
        text = f"{source} sends {found.sent}, {edge.target} takes {found.taken}"
        if verdict is Verdict.DOUBTFUL:
            text += " (fits only if it is left out, empty, or converted)"
    return Checked(edge, verdict, f"{found.path}: {text}" if found.path else text, found.path, found.sent, found.taken)
