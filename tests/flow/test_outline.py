"""The tree of a run: chains are flat, branches are indented, whatever was removed."""

from __future__ import annotations

import pytest

from flowkit.flow import paths
from flowkit.flow.outline import outline

LONG = "0" + ".0" * (paths.LONGEST - 1)
FOLDED = paths.fold(f"{LONG}.0", "")
SECOND = paths.fold(f"{LONG}.1", "")


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        (["0", "0.0", "0.0.0"], [("0", 0), ("0.0", 0), ("0.0.0", 0)]),
        (["0", "0.0", "0.1", "0.1.0", "0.0.0"], [("0", 0), ("0.0", 1), ("0.0.0", 1), ("0.1", 1), ("0.1.0", 1)]),
        (["0", "0.0.1", "0.0.0", "0.0.then", "0.0.then.0"],
         [("0", 0), ("0.0.0", 1), ("0.0.1", 1), ("0.0.then", 0), ("0.0.then.0", 0)]),
        (["0", *(f"0.0.{n}" for n in range(11))], [("0", 0), *((f"0.0.{n}", 1) for n in range(11))]),
        (["0", "0.0.0", "0.0.then"], [("0", 0), ("0.0.0", 0), ("0.0.then", 0)]),
        ([LONG, (FOLDED, f"{LONG}.0"), f"{FOLDED}.0"], [(LONG, 0), (FOLDED, 0), (f"{FOLDED}.0", 0)]),
        ([LONG, (FOLDED, f"{LONG}.0"), (SECOND, f"{LONG}.1"), f"{FOLDED}.0"],
         [(LONG, 0), (FOLDED, 1), (f"{FOLDED}.0", 1), (SECOND, 1)]),
        (["0", f"{FOLDED}.0.0", f"{FOLDED}.0.0.0"], [("0", 0), (f"{FOLDED}.0.0", 0), (f"{FOLDED}.0.0.0", 0)]),
    ],
)  # fmt: skip
def test_an_outline(places: list[str | tuple[str, str]], expected: list[tuple[str, int]]) -> None:
    assert outline(place if isinstance(place, tuple) else (place, None) for place in places) == expected
