"""What a branch amounts to."""

from __future__ import annotations

from itertools import permutations
from uuid import UUID

from flowkit.flow.state import Leaf
from flowkit.flow.values import branch_values


def test_of_several_failures_in_a_branch_the_first_by_its_path_is_the_value() -> None:
    leaves = [Leaf(f"0.0.0.{number}", UUID(int=number), None, b'{"type":"%d"}' % number) for number in (2, 10, 3)]
    for order in permutations(leaves):
        assert branch_values("0.0", order) == [b'{"error":{"type":"2"}}']
