"""The part of mermaid's grammar that we write, line by line.

Checked once by hand against mermaid's own parser (11.x, `mermaid.parse`), which needs Node.js.
"""

from __future__ import annotations

import re

_TEXT = r"(?:[\w .,:…-]|#\d+;|<br/>)+"
_ID = r"[a-z][a-z0-9]*"
_BOXES = (
    rf'\["{_TEXT}"\]',
    rf'\(\["{_TEXT}"\]\)',
    rf'\{{\{{"{_TEXT}"\}}\}}',
    rf'\(\("{_TEXT}"\)\)',
    rf'\[\["{_TEXT}"\]\]',
)
VERTEX = re.compile(rf"    ({_ID})(?:{'|'.join(_BOXES)})")
ARROW = re.compile(rf"    ({_ID}) (?:-->|-\.->|-\.->\|on error\||-\.->\|detached\|) ({_ID})")
STYLE = re.compile(r"    classDef ([a-z]+) [a-z-]+:[#\w. ]+(?:,[a-z-]+:[#\w. ]+)*")
CLASS = re.compile(rf"    class ({_ID}(?:,{_ID})*) ([a-z]+)")
RESERVED = {"end", "graph", "subgraph", "flowchart", "click", "style", "class", "default", "direction"}


def read(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Ids of vertices, and arrows; an AssertionError for what mermaid might not read."""
    head, *lines = text.split("\n")
    assert head == "flowchart TD"
    vertices: list[str] = []
    arrows: list[tuple[str, str]] = []
    styles: set[str] = set()
    for line in lines:
        if found := VERTEX.fullmatch(line):
            assert found[1] not in RESERVED | set(vertices), line
            vertices.append(found[1])
        elif found := ARROW.fullmatch(line):
            assert {found[1], found[2]} <= set(vertices), line
            arrows.append((found[1], found[2]))
        elif found := STYLE.fullmatch(line):
            assert found[1] not in RESERVED | styles, line
            styles.add(found[1])
        else:
            found = CLASS.fullmatch(line)
            assert found is not None, line
            assert set(found[1].split(",")) <= set(vertices), line
            assert found[2] in styles, line
    return vertices, arrows
