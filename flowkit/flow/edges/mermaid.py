"""A graph as text for mermaid, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from flowkit.flow.edges.graph import Graph, Line, Shape, Vertex

_LENGTH = 60  # characters of a name
_SAFE = frozenset(" _-.,:…")
_BRACKETS = {
    Shape.TASK: ("[", "]"),
    Shape.ABSENT: ("[", "]"),
    Shape.OPEN: ("([", "])"),
    Shape.WAIT: ("{{", "}}"),
    Shape.JOIN: ("((", "))"),
    Shape.RUN: ("([", "])"),
    Shape.DETACHED: ("[[", "]]"),
}
_ARROWS = {
    Line.PLAIN: "-->",
    Line.OWN: "-->",
    Line.STEP: "-->",
    Line.OPEN: "-.->",
    Line.ON_ERROR: "-.->|on error|",
    Line.DETACHED: "-.->|detached|",
}
_LOOKS = {  # the first one that counts is how a vertex looks
    "failed": "stroke:#c0392b,stroke-width:3px",
    "running": "stroke:#b7950b,stroke-width:3px",
    "waiting": "stroke:#b7950b,stroke-dasharray:5 3",
    "held": "stroke:#b7950b,stroke-dasharray:5 3",
    "paused": "stroke:#b7950b,stroke-dasharray:5 3",
    "queued": "stroke:#7f8c8d,stroke-dasharray:2 2",
    "cancelled": "stroke:#7f8c8d",
    "succeeded": "stroke:#1e8449,stroke-width:2px",
}
_UNKNOWN = "stroke-dasharray:5 3"


def mermaid(graph: Graph) -> str:
    """Write a graph as a flowchart."""
    lines, looks = ["flowchart TD"], dict[str, list[str]]()
    for vertex in graph.vertices:
        opening, closing = _BRACKETS[vertex.shape]
        lines.append(f'    {vertex.id}{opening}"{_label(vertex)}"{closing}')
        if (look := _look(vertex)) is not None:
            looks.setdefault(look, []).append(vertex.id)
    lines += [f"    {arrow.source} {_ARROWS[arrow.line]} {arrow.target}" for arrow in graph.arrows]
    lines += [f"    classDef {look} {_LOOKS.get(look, _UNKNOWN)}" for look in looks]
    lines += [f"    class {','.join(ids)} {look}" for look, ids in looks.items()]
    return "\n".join(lines)


def _label(vertex: Vertex) -> str:
    first = vertex.name if len(vertex.name) <= _LENGTH else f"{vertex.name[:_LENGTH]}…"
    if vertex.shape is Shape.ABSENT:
        first += " (nobody provides it)"
    return "<br/>".join(_escape(text) for text in (_before(vertex) + first, _counts(vertex)) if text)


def _before(vertex: Vertex) -> str:
    return {Shape.RUN: "run ", Shape.WAIT: "wait: "}.get(vertex.shape, "")


def _counts(vertex: Vertex) -> str:
    if vertex.counts.total() == 1:
        return next(iter(vertex.counts))
    return ", ".join(f"{vertex.counts[status]:,} {status}" for status in _LOOKS if vertex.counts[status])


def _look(vertex: Vertex) -> str | None:
    if vertex.shape in (Shape.ABSENT, Shape.OPEN):
        return vertex.shape.value
    return next((status for status in _LOOKS if vertex.counts[status]), None)


def _escape(text: str) -> str:
    """Signs that mermaid or HTML would read are spelled as ``#`` and their number."""
    return "".join(
        letter if letter.isalnum() or letter in _SAFE else " " if not letter.isprintable() else f"#{ord(letter)};"
        for letter in text
    )
