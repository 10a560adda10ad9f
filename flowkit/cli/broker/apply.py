"""``flowkit broker apply``: declare what should stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.cli.broker.expected import NODE_QUEUES, kind, parts_of
from flowkit.errors import AccessRefused

if TYPE_CHECKING:
    from flowkit.settings import Settings
    from flowkit.wire.topology import Part

HELP = options.page(
    "Declare the standing exchanges and queues.",
    "flowkit broker apply",
    "flowkit broker apply --node resize --node store",
    "flowkit broker apply --broker amqp://admin@rabbitmq/ --namespace staging",
    after=(
        "Coordinators and workers do it too, as far as their login may. It changes nothing that is there. Nodes of "
        "workers in the setting 'users' get their queues as well."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("apply", help=HELP)(apply)


def apply(
    *,
    node: Annotated[list[str] | None, NODE_QUEUES] = None,
    broker: options.Broker = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Declare, print."""
    from flowkit.cli.render.output import data, data_json

    settings = options.settings_of(broker_url=broker, namespace=namespace)
    parts = parts_of(settings, node or ())
    forbidden = options.complete(_apply(settings, parts))
    if as_json:
        listed = [{"kind": kind(part), "name": part.name, "declared": part not in forbidden} for part in parts]
        data_json({"v": 1, "parts": listed})
    else:
        for part in parts:
            data(f"{'forbidden' if part in forbidden else 'declared '}  {kind(part):<8}  {part.name}")
    if forbidden:
        raise AccessRefused(
            f"{len(forbidden)} of {len(parts)} parts: this login may not declare them. Give it 'configure' permission "
            f"for {settings.namespace}.*, or use a login that has it."
        )


async def _apply(settings: Settings, parts: Iterable[Part]) -> list[Part]:
    from flowkit.cli.resources import broker_of

    async with broker_of(settings) as broker:
        return await broker.declare(parts)
