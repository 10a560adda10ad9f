"""Which runs a command is for: named one by one, or chosen with ``--where`` and ``--since``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.errors import NotFound, Refused, UsageError

if TYPE_CHECKING:
    from flowkit.store.views import Queries, RunRow

Runs = Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Ids of runs.", show_default=False)]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="KEY=VALUE", help="Runs with this status, node, parent or tag.KEY."),
]
Since = Annotated[str | None, typer.Option("--since", metavar="1h", help="Only runs begun within this time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many, and print their ids.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

STATUSES = ("running", "paused", "succeeded", "failed", "cancelled")
PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for. ``ids`` is empty where runs are chosen by what they are."""

    ids: tuple[str, ...] = ()
    status: str | None = None
    node: str | None = None
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    since: float | None = None  # Unix seconds

    def rows(self, query: Queries) -> list[RunRow]:
        """The runs.

        Raises:
            NotFound: one that was named is not there.
        """
        if self.ids:
            return [_named(query, run_id) for run_id in dict.fromkeys(self.ids)]
        found: list[RunRow] = []
        cursor: str | None = None
        while True:
            page, cursor = query.runs(
                limit=PAGE, after=cursor, status=self.status, node=self.node, since=self.since, parent=self.parent,
                tags=self.tags,
            )  # fmt: skip
            found += page
            if cursor is None:
                return found


def selection(ids: Sequence[str] | None, where: Sequence[str] | None, since: str | None) -> Selection:
    """From the words of a command line.

    Raises:
        UsageError: nothing was chosen, or in both ways, or by something that runs do not have.
    """
    if ids and (where or since):
        raise UsageError("name runs, or choose them with --where and --since; not both")
    if not ids and not where and not since:
        raise UsageError("which runs? Name them, or choose them: --where status=failed --since 1h")
    plain: dict[str, str] = {}
    tags: dict[str, str] = {}
    for pair in where or ():
        key, equals, value = pair.partition("=")
        known = (key in ("node", "parent") and value != "") or (key == "status" and value in STATUSES)
        if not equals or not (known or key.startswith("tag.")):
            expected = f"status={'|'.join(STATUSES)}, node=NAME, parent=RUN or tag.KEY=VALUE"
            raise UsageError(f"--where {pair!r}: expected {expected}")
        chosen = plain if known else tags
        name = key.removeprefix("tag.")
        if chosen.get(name, value) != value:
            raise UsageError(f"--where {pair!r}: no run has two values of {key}; it was {chosen[name]!r} before")
        chosen[name] = value
    oldest = time.time() - options.seconds(since, "--since") if since is not None else None
    return Selection(tuple(ids or ()), tags=tags, since=oldest, **plain)


def agreed(question: str, *, yes: bool) -> bool:
    """Whether somebody agrees to do it to many.

    Args:
        question: such as ``cancel 3 runs``.
        yes: they have said so already.

    Raises:
        Refused: there is nobody to ask.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(f"to {question}: add --yes, or look first with --dry-run")
    return typer.confirm(f"{question[0].upper()}{question[1:]}?", err=True)


def _named(query: Queries, run_id: str) -> RunRow:
    row = query.run(run_id)
    if row is None:
        raise NotFound("run", run_id, "'flowkit runs list' shows those that are there.")
    return row
