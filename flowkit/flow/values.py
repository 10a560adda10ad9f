"""Values of scopes: what a run or a branch amounts to. A value is always a JSON object, kept encoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from flowkit.flow import paths
from flowkit.flow.state import Leaf
from flowkit.wire import codec


def value(leaves: Iterable[Leaf]) -> bytes:
    """The outputs of the one leaf, or ``{"results": […]}`` in path order of several."""
    ordered = sorted(leaves, key=lambda leaf: paths.order(leaf.path))
    if len(ordered) == 1:
        return ordered[0].outputs or b"{}"
    return codec.dumps({"results": [codec.embed(leaf.outputs or b"{}") for leaf in ordered]})


def branch_values(scope: str, leaves: Iterable[Leaf]) -> list[bytes]:
    """The value of each branch of a Gather, in the order of its sends; a failed branch is ``{"error": …}``."""
    branches: dict[int, list[Leaf]] = defaultdict(list)
    for leaf in leaves:
        branches[paths.branch(scope, leaf.path)].append(leaf)
    return [_branch_value(branches[index]) for index in sorted(branches)]


def continuation(opener: bytes, own: dict[str, Any] | None, results: list[bytes]) -> bytes:
    """Inputs of a Gather's ``then``: the opener's outputs, then its own inputs, then ``results``."""
    merged = {**codec.loads(opener), **(own or {}), "results": [codec.embed(result) for result in results]}
    return codec.dumps(merged)


def _branch_value(leaves: list[Leaf]) -> bytes:
    errors = {leaf.path: leaf.error for leaf in leaves if leaf.error is not None}
    if not errors:
        return value(leaves)
    return codec.dumps({"error": codec.embed(errors[min(errors, key=paths.order)])})  # whatever order rows came in
