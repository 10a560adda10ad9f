"""``flowkit broker diff``: what is missing on the broker, and what stands there with other arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.cli.broker.expected import NODE_QUEUES, kind, parts_of
from flowkit.errors import AccessRefused, Refused

if TYPE_CHECKING:
    from flowkit.broker import Broker
    from flowkit.settings import Settings
    from flowkit.wire.topology import Part

HELP = options.page(
    "Compare the broker with what should stand there.",
    "flowkit broker diff",
    "flowkit broker diff --node resize --json",
    after=(
        "Exit 1 when something is missing or differs. AMQP shows neither bindings nor permissions: 'broker apply' "
        "makes the former, 'broker definitions' lists the latter. It changes nothing."
    ),
)
SIGNS = {"same": "=", "missing": "-", "differs": "!", "unknown": "?"}


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part stands: ``same``, ``missing``, ``differs``, or ``unknown`` where this login may not ask."""

    part: Part
    state: str
    detail: str = ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("diff", help=HELP)(diff)


def diff(
    *,
    node: Annotated[list[str] | None, NODE_QUEUES] = None,
    broker: options.Broker = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Compare, print."""
    from flowkit.cli.render.output import data, data_json, say

    settings = options.settings_of(broker_url=broker, namespace=namespace)
    findings = options.complete(_compare(settings, parts_of(settings, node or ())))
    if as_json:
        listed = [
            {"kind": kind(found.part), "name": found.part.name, "state": found.state, "detail": found.detail}
            for found in findings
        ]
        data_json({"v": 1, "same": all(found.state == "same" for found in findings), "parts": listed})
    else:
        for line in _lines(findings):
            data(line)
    unknown = [found for found in findings if found.state == "unknown"]
    if unknown:
        say(f"{len(unknown)} parts may not be compared by this login: it needs 'configure' permission for them")
    if any(found.state != "same" for found in findings):
        raise typer.Exit(1)


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    for found in findings:
        yield f"{SIGNS[found.state]} {found.state:<8}  {kind(found.part):<8}  {found.part.name}"
        if found.detail:
            yield f"    {found.detail}"


async def _compare(settings: Settings, parts: Iterable[Part]) -> list[Finding]:
    from flowkit.cli.resources import broker_of

    async with broker_of(settings) as broker:
        return [await compare(broker, part) for part in parts]


async def compare(broker: Broker, part: Part) -> Finding:
    """How this part stands on the broker; nothing is made or changed there."""
    from flowkit.wire.topology import Exchange

    try:
        there = await (broker.exists(part) if isinstance(part, Exchange) else broker.inspect(part.name))
    except AccessRefused as error:
        return Finding(part, "unknown", str(error))
    if there is None or there is False:
        return Finding(part, "missing")
    try:
        # To declare what is there is the only way in AMQP to ask for its arguments; bindings would be made anew.
        forbidden = await broker.declare([part if isinstance(part, Exchange) else replace(part, bindings=())])
    except Refused as error:
        return Finding(part, "differs", str(error))
    return Finding(part, "unknown") if forbidden else Finding(part, "same")
