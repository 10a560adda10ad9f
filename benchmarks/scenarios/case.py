"""A case: one system at one work, played once in each round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Figures = Mapping[str, float]  # what was measured -> in the unit that its name says


class Case(Protocol):
    """What is measured in one go. The driver calls these in order, and ``end`` whatever happens."""

    @property
    def key(self) -> str:
        """Under which its figures are kept, mostly the name of its system."""

    @property
    def title(self) -> str:
        """What a table calls it."""

    @property
    def guarantees(self) -> str:
        """What it promises, for the column beside its figures; empty where that is no question."""

    def begin(self) -> None:
        """Everything that is not to be measured."""

    def execute(self) -> Figures:
        """What is."""

    def end(self) -> None:
        """Leave nothing behind."""
