"""The tasks of a run as a tree for people: a chain stays flat, however long it is, and only branches are indented."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from flowkit.flow import paths


class Line(NamedTuple):
    """A task in the tree."""

    path: str
    level: int  # of branches that it stands in


def outline(places: Iterable[tuple[str, str | None]]) -> list[Line]:
    """Order tasks so that each stands below the one that it follows.

    Args:
        places: path of each task, and its path before it was folded, if it was.
    """
    names = {path: unfolded or path for path, unfolded in places}
    below = _below(names)
    lines: list[Line] = []
    waiting = [Line(path, 0) for path in reversed(below.get("", []))]
    while waiting:
        line = waiting.pop()
        if line.path in names:
            lines.append(line)
        following = below.get(line.path, [])
        branches = sum(not path.endswith(f".{paths.THEN}") for path in following)
        for path in reversed(following):
            goes_on = names.get(path, path).endswith(f".{paths.THEN}")
            waiting.append(Line(path, line.level + (branches > 1 and not goes_on)))
    return lines


def _below(names: dict[str, str]) -> dict[str, list[str]]:
    """What stands below each task, and below each place where no task stands: a Gather, or a task that was removed."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    known: set[str] = set()
    for path, name in names.items():
        place, called = path, name
        while place not in known:
            known.add(place)
            above = called.rpartition(".")[0]
            found[above].append((called, place))
            if above in names or not above:
                break
            place = called = above
    return {above: [place for _, place in sorted(some, key=_order)] for above, some in found.items()}


def _order(place: tuple[str, str]) -> tuple[object, ...]:
    return paths.order(place[0])
