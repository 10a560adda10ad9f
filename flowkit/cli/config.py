"""``flowkit config``: every setting, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from flowkit.cli import options

if TYPE_CHECKING:
    from flowkit.settings import Settings

HELP = options.page(
    "Print every setting and its origin.",
    "flowkit config",
    "FLOWKIT_CONCURRENCY=20 flowkit config --json",
    after=(
        "Passwords are masked. Flags come before environment variables (FLOWKIT_…), then flowkit.toml or "
        "[tool.flowkit], then defaults."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("config", help=HELP)(config)


def config(
    *,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
    nodes: options.Nodes = None,
    as_json: options.Json = False,
) -> None:
    """Read, print."""
    from flowkit.cli.render.output import data, data_json, table

    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace, nodes_dir=nodes)
    values = {name: (_shown(settings, name), settings.origin(name)) for name in type(settings).model_fields}
    if as_json:
        listed = {name: {"value": value, "origin": origin} for name, (value, origin) in values.items()}
        data_json({"v": 1, "settings": listed})
    else:
        data(
            table(
                ("setting", "value", "from"), [(name, str(value), origin) for name, (value, origin) in values.items()]
            )
        )


def _shown(settings: Settings, name: str) -> Any:
    from flowkit.addresses import mask

    value = settings.model_dump(mode="json")[name]
    return mask(value) if name.endswith("_url") else value
