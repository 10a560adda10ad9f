"""How much is shown of a run with very many tasks: the first and the last of them, on lines of a bounded width."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from flowkit.store.views import RunRow

T = TypeVar("T")

Every = Annotated[bool, typer.Option("--all", help="All tasks, also when there are very many.")]
FIRST, LAST = 20, 180  # tasks of very many
DEEPEST = 12  # levels that a tree is indented by
NARROWEST = 40  # columns


def cut(some: Sequence[T], *, every: bool) -> tuple[Sequence[T], int, Sequence[T]]:
    """The first and the last of very many, and how many are left out between them."""
    if every or len(some) <= FIRST + LAST:
        return some, 0, ()
    return some[:FIRST], len(some) - FIRST - LAST, some[-LAST:]


def indent(level: int) -> str:
    """What stands before a line of a tree."""
    return "  " * min(level, DEEPEST)


def fit(text: str, taken: int) -> str:
    """Text cut to what is left of a line of the terminal (``COLUMNS``; 80 where there is none)."""
    room = max(NARROWEST, shutil.get_terminal_size().columns) - taken
    return text if len(text) <= room else f"{text[: room - 1]}…"


def removed(run: RunRow) -> str:
    """What to say of a run of which tasks were removed."""
    return f"{run.trimmed:,} of its oldest tasks were removed while it ran (max_history)"
