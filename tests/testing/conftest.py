"""Nodes that tests of the simulation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowkit import Node


def node_of(name: str, main: Callable[[Node], Any], **options: Any) -> Node:
    """A node whose main calls a function with the node; the function may be async."""
    node = Node(name, **options)

    @node.main
    async def run():
        returned = main(node)
        return await returned if hasattr(returned, "__await__") else returned

    return node


@pytest.fixture
def make():
    return node_of
