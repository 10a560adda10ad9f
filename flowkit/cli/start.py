"""``flowkit start``: begin a run on the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowkit.cli import options
from flowkit.cli.inputs import inputs_of, tags_of

if TYPE_CHECKING:
    from flowkit.cli.render.progress import Progress
    from flowkit.client import Run
    from flowkit.settings import Settings

HELP = options.page(
    "Begin a run on the broker.",
    """flowkit start add --input '{"a": 1, "b": 2}' --wait""",
    "flowkit start resize -F url=https://example.org/a.png --id a.png --tag tenant=acme",
    "flowkit start report --input @report.json --delay 5m",
    after=(
        "It prints the id of the run, with --wait also its outputs, as JSON after the id. The same --id with the "
        "same node and inputs is the same run, however often it is started."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("start", help=HELP)(start)


def start(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of the first node.")],
    *,
    input: options.Input = None,  # noqa: A002 - the flag's name
    fields: options.Fields = None,
    run_id: Annotated[
        str | None, typer.Option("--id", metavar="KEY", help="Id of the run; made up when left out.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="K=V", help="A word to find the run by.")] = None,
    delay: Annotated[str | None, typer.Option(metavar="5m", help="Send its first task later.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit 1 when it failed.")] = False,
    timeout: Annotated[str | None, typer.Option(metavar="10m", help="With --wait: how long; then exit 5.")] = None,
    broker: options.Broker = None,
    namespace: options.Namespace = None,
) -> None:
    """Parse, start, print."""
    inputs, tags = inputs_of(input, fields), tags_of(tag)
    settings = options.settings_of(broker_url=broker, namespace=namespace)
    later = options.seconds(delay, "--delay") if delay is not None else 0
    patience = options.seconds(timeout, "--timeout") if timeout is not None else None
    given: dict[str, Any] = {"id": run_id, "tags": tags, "delay": later}
    options.complete(_start(settings, node, inputs, given, wait=wait, timeout=patience))


async def _start(
    settings: Settings, node: str, inputs: dict[str, Any], given: dict[str, Any], *, wait: bool, timeout: float | None
) -> None:
    from flowkit.cli.render import output
    from flowkit.cli.render.progress import Progress
    from flowkit.client import Client
    from flowkit.client.client import start_message

    start_message(node, inputs, run_id=given["id"], tags=given["tags"], delay=given["delay"])  # or say what is wrong
    async with Client(settings.broker_url, namespace=settings.namespace, listen=wait) as client:
        run = await client.start(node, inputs, **given)
        output.data(run.id)
        if wait:
            outputs = await _outputs(run, timeout, Progress(f"waiting for {node}"))
            output.data_json(outputs)


async def _outputs(run: Run, timeout: float | None, progress: Progress) -> dict[str, Any]:
    import asyncio

    from flowkit.cli.render.output import duration

    async with asyncio.TaskGroup() as group:
        drawing = group.create_task(_draw(progress))
        try:
            outputs = await run.outputs(timeout=timeout)
            progress.above(f"run {run.id} succeeded in {duration(progress.seconds)}")
        finally:
            drawing.cancel()
            progress.end()
    return outputs


async def _draw(progress: Progress) -> None:
    import asyncio

    while progress.shown:
        progress.update("")
        await asyncio.sleep(0.2)
