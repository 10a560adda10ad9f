"""``flowkit broker apply``: the exchanges and queues of a namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flowkit.cli import options
from flowkit.errors import AccessRefused

if TYPE_CHECKING:
    from flowkit.settings import Settings
    from flowkit.wire.topology import Part

app = typer.Typer(help="The exchanges and queues of a namespace.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """One verb alone would become the group itself."""


@app.command(
    help=options.page(
        "Declare the standing exchanges and queues.",
        "flowkit broker apply",
        "flowkit broker apply --broker amqp://admin@rabbitmq/ --namespace staging",
        after="Coordinators and workers do it too, as far as their login may. It changes nothing that is there.",
    )
)
def apply(
    *,
    broker: options.Broker = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Declare, print."""
    from flowkit.cli.output import data, data_json

    settings = options.settings_of(broker_url=broker, namespace=namespace)
    parts, forbidden = options.complete(_apply(settings))
    if as_json:
        listed = [{"kind": _kind(part), "name": part.name, "declared": part not in forbidden} for part in parts]
        data_json({"v": 1, "parts": listed})
    else:
        for part in parts:
            data(f"{'forbidden' if part in forbidden else 'declared '}  {_kind(part):<8}  {part.name}")
    if forbidden:
        raise AccessRefused(
            f"{len(forbidden)} of {len(parts)} parts: this login may not declare them. Give it 'configure' permission "
            f"for {settings.namespace}.*, or use a login that has it."
        )


async def _apply(settings: Settings) -> tuple[tuple[Part, ...], list[Part]]:
    from flowkit.cli.parts import broker_of
    from flowkit.wire.topology import Topology

    parts = Topology(settings.namespace).standing
    async with broker_of(settings) as broker:
        return parts, await broker.declare(parts)


def _kind(part: Part) -> str:
    from flowkit.wire.topology import Exchange

    return "exchange" if isinstance(part, Exchange) else "queue"
