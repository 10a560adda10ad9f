"""``flowkit broker``: the exchanges and queues of a namespace, and who may do what with them."""

from __future__ import annotations

import typer

from flowkit.cli.broker import apply, definitions, diff

app = typer.Typer(
    help="The exchanges and queues of a namespace, and who may do what.", no_args_is_help=True, rich_markup_mode=None
)
for verb in (apply, diff, definitions):
    verb.register(app)


def register(parent: typer.Typer) -> None:
    """Add the group."""
    parent.add_typer(app, name="broker")
