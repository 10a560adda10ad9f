"""``flowkit db status|upgrade``: the tables of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flowkit.cli import options

if TYPE_CHECKING:
    from flowkit.store import SchemaStatus

app = typer.Typer(help="The tables of the store.", no_args_is_help=True, rich_markup_mode=None)


def register(parent: typer.Typer) -> None:
    """Add the group."""
    parent.add_typer(app, name="db")


@app.command(
    help=options.page(
        "Say which version the tables have; exit 1 when they are not current.",
        "flowkit db status",
        "flowkit db status --store postgresql://flowkit@db/flowkit --json",
    )
)
def status(*, store: options.Store = None, as_json: options.Json = False) -> None:
    """Look, print."""
    from flowkit.cli.resources import exists
    from flowkit.store import schema_status

    settings = options.settings_of(store_url=store)
    if not exists(settings.store_url):
        from flowkit.addresses import mask
        from flowkit.store import SchemaStatus
        from flowkit.store.schema import HEAD

        found = SchemaStatus(mask(settings.store_url), None, HEAD)  # to look must not make a file
    else:
        found = options.complete(schema_status(settings.store_url))
    _print(found, as_json=as_json)
    if not found.current:
        raise typer.Exit(1)


@app.command(
    help=options.page(
        "Make the tables, or bring them up to date. Coordinators do it too when they start.",
        "flowkit db upgrade",
        "flowkit db upgrade --store postgresql://flowkit@db/flowkit",
    )
)
def upgrade(*, store: options.Store = None, as_json: options.Json = False) -> None:
    """Upgrade, print."""
    from flowkit.store import upgrade_schema

    _print(options.complete(upgrade_schema(options.settings_of(store_url=store).store_url)), as_json=as_json)


def _print(found: SchemaStatus, *, as_json: bool) -> None:
    from flowkit.cli.render.output import data, data_json

    if as_json:
        data_json({"v": 1, "store": found.url, "version": found.version, "head": found.head, "current": found.current})
        return
    state = (
        "has no tables yet: flowkit db upgrade"
        if found.version is None
        else f"is current (version {found.version})"
        if found.current
        else f"has version {found.version}, this FlowKit works with {found.head}: flowkit db upgrade"
    )
    data(f"store {found.url} {state}")
