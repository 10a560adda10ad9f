"""``flowkit run``: a whole workflow in this process."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowkit.cli import options
from flowkit.cli.inputs import inputs_of
from flowkit.cli.render.output import say

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.broker import Consumer
    from flowkit.cli.render.progress import Progress
    from flowkit.embedded import Embedded
    from flowkit.store.views import Queries, RunRow
    from flowkit.wire.messages import RunEnded

LOOK = 0.1  # seconds between two looks at detached runs

HELP = options.page(
    "Run a whole workflow in this process.",
    "flowkit run add -F a=1 -F b=2",
    """flowkit run add --input '{"a": 1, "b": 2}'""",
    "flowkit run discover -F directory=src --json | jq .files",
    after=(
        "Outputs go to stdout; logs, and whatever nodes print, go to stderr. "
        "The first Ctrl-C ends it in order, a second one at once. "
        "It uses a broker in memory and a temporary store (FLOWKIT_BROKER_URL and FLOWKIT_STORE_URL do not count)."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run", help=HELP)(run)


def run(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of the first node: a file in the nodes folder.")],
    *,
    input: options.Input = None,  # noqa: A002 - the flag's name
    fields: options.Fields = None,
    nodes: options.Nodes = None,
    store: Annotated[str | None, typer.Option("--store", metavar="URL", help="Keep the run in this store.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Tasks of one node at a time.")] = None,
    as_json: options.Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more: node files present, debug logs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No logs of nodes below WARNING.")] = False,
) -> None:
    """Parse, run, print."""
    from flowkit.cli.services.own_log import configure
    from flowkit.streams import reserve_stdout
    from flowkit.worker.interrupts import Interrupts
    from flowkit.worker.records import protect_own_log

    reserve_stdout()  # before the code of nodes is imported
    inputs = inputs_of(input, fields)
    settings = options.settings_of(nodes_dir=nodes)
    threshold = "DEBUG" if verbose else "WARNING" if quiet else "INFO"
    place = {"store_url": store, "concurrency": concurrency or 20, "limits": settings.limits}
    configure("WARNING", settings.log_format)
    protect_own_log()
    # All that is loaded by now stays to the end, so the collector need not look at it again and again: of the
    # 24 s of CPU that the code census took, whose nodes make millions of short-lived objects, 7 were the collector.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with Interrupts(lambda text: say(f"flowkit: {text}"), settings.log_format) as interrupts:
        try:
            ended = interrupts.run(_run(node, inputs, settings.nodes_dir, place, threshold))
            succeeded = _print(ended, as_json=as_json)
        finally:
            interrupts.wait_for_threads("the run has ended")
    if not succeeded:
        raise typer.Exit(1)


def _print(ended: RunEnded, *, as_json: bool) -> bool:
    """Print the outputs of a run, or why it has none; whether it has succeeded."""
    from flowkit.cli.render import output
    from flowkit.streams import results

    if ended.status != "succeeded":
        _explain(ended)
        return False
    outputs = ended.outputs or {}
    if results().isatty() and not as_json:
        output.data(output.outputs(outputs))
    else:
        output.data_json(outputs)
    return True


async def _run(node: str, inputs: dict[str, Any], nodes: Path, place: dict[str, Any], threshold: str) -> RunEnded:
    import asyncio

    from flowkit import loading
    from flowkit.cli.render.progress import Progress
    from flowkit.embedded import embedded
    from flowkit.errors import UsageError

    progress = Progress(node)
    async with embedded(nodes, **place) as (house, client):
        if threshold == "DEBUG":
            progress.above(f"nodes in {nodes}: {', '.join(sorted(loading.find(nodes)))}")
        if reason := await house.summon(node):  # the first node's mistakes are the caller's, not the run's
            raise UsageError(reason)
        logs = house.broker.consume(house.topology.logs, prefetch=10_000, offset="first")
        async with asyncio.TaskGroup() as group:
            group.create_task(_print_logs(logs, progress, threshold))
            drawing = group.create_task(_draw(house, progress))
            try:
                ended = await house.completed(await (await client.start(node, inputs)).end())
                await _detached(house, ended.run_id, progress)
            finally:
                drawing.cancel()
                progress.end()  # however it ended: what is said next begins on a line of its own
                await logs.stop()  # what has arrived is still printed
    return ended


async def _detached(house: Embedded, run_id: str, progress: Progress) -> None:
    """Wait for the detached runs that it began, which would end with this process; say which of them failed."""
    import asyncio

    runs = await house.store.query(partial(_descent, run_id))
    if any(run.ended_at is None for run in runs):
        names = sorted({run.node for run in runs})
        progress.above(f"the run has ended; detached runs go on: {', '.join(names)}")
    while any(run.ended_at is None for run in runs):
        await asyncio.sleep(LOOK)
        runs = await house.store.query(partial(_descent, run_id))
    for run in runs:
        if run.status != "succeeded":
            progress.above(f"detached run {run.id} of {run.node} {run.status}: {run.message}")


def _descent(run_id: str, query: Queries) -> list[RunRow]:
    """The detached runs that a run began, and those that they did."""
    found: list[RunRow] = []
    parents = [run_id]
    while parents:
        parent, cursor, more = parents.pop(), None, True
        while more:
            page, cursor = query.runs(limit=1_000, parent=parent, after=cursor)
            found += (detached := [run for run in page if run.origin == "detached"])
            parents += [run.id for run in detached]
            more = cursor is not None
    return found


def _explain(ended: RunEnded) -> None:
    """Why the run failed: the author's traceback, then one line."""
    from flowkit.flow.failures import describe

    error = ended.error
    if error is not None and error.traceback:
        say(error.traceback.rstrip())
    why = describe(error.model_dump()) if error is not None else ended.message
    say(f"flowkit: the run {ended.status}: {why}")


async def _print_logs(logs: Consumer, progress: Progress, threshold: str) -> None:
    from flowkit.cli.render import log_lines
    from flowkit.wire import messages as wire

    while deliveries := await logs.receive(1_000):
        for delivery in deliveries:
            for log in wire.decode_each(wire.Log, delivery.body)[0]:
                if log_lines.rank(log.level) >= log_lines.rank(threshold):
                    progress.above(log_lines.show(log))
        await logs.ack(deliveries)


async def _draw(house: Embedded, progress: Progress) -> None:
    import asyncio

    while progress.shown:
        await asyncio.sleep(0.2)
        counts = await house.store.query(lambda query: query.nodes())
        waiting = sum(count.held + count.queued for count in counts)
        running = ", ".join(count.node for count in counts if count.running or count.queued)
        progress.update(
            f"{running}: {waiting + sum(count.running for count in counts):,} tasks to do" if counts else ""
        )
