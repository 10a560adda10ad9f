"""``flowkit version`` and ``flowkit --version``."""

from __future__ import annotations

import typer

from flowkit.cli import options
from flowkit.cli.render.output import data


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("version", help=options.page("Print the version.", "flowkit version"))(version)


def version() -> None:
    """Print it."""
    data(f"flowkit {current()}")


def show(given: bool) -> None:
    """The flag ``--version``."""
    if given:
        version()
        raise typer.Exit


def current() -> str:
    """The version that is installed."""
    from importlib import metadata

    try:
        return metadata.version("flowkit-mq")
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return "0+source"
