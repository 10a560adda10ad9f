"""``flowkit runs``: the group, and the verbs in it."""

from __future__ import annotations

import typer

from flowkit.cli.runs import control, explain, listing, prune, rerun

app = typer.Typer(
    help="What ran and what runs: look, explain, cancel, retry, signal.", no_args_is_help=True, rich_markup_mode=None
)
for verbs in (listing, control, rerun, explain, prune):
    verbs.register(app)


def register(parent: typer.Typer) -> None:
    """Add the group."""
    parent.add_typer(app, name="runs")
