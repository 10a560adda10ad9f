"""``flowkit graph``: a drawing of what may happen, or of what did happen in a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowkit.cli import options
from flowkit.cli.declared import sources
from flowkit.errors import NotFound, UsageError

if TYPE_CHECKING:
    from flowkit.flow.edges.graph import Graph
    from flowkit.store.views import Queries, RunRow, TaskRow

PAGE = 1_000  # runs that are asked for at a time

HELP = options.page(
    "Draw what may happen, or what did in a run.",
    "flowkit graph expense",
    "flowkit graph --announced > workflows.mmd",
    "flowkit graph --run 5f1c… --json | jq '.nodes[] | select(.counts.failed)'",
    after=(
        "The drawing is text for mermaid, which GitHub, GitLab and https://mermaid.live draw. What nodes do not "
        "declare is a dashed edge to …; branches of a Gather that are alike are drawn once, with counts."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("graph", help=HELP)(graph)


def graph(
    names: sources.Names = None,
    *,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Draw what did happen in this run.")] = None,
    nodes: options.Nodes = None,
    announced: sources.Announced = False,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Read, draw, print."""
    from flowkit.cli.render.output import data, data_json, say
    from flowkit.flow.edges.graph import possible
    from flowkit.flow.edges.mermaid import mermaid

    if run is not None:
        if names or announced or nodes is not None:
            raise UsageError("--run draws one run from the store; leave out NODE, --nodes and --announced")
        drawn = options.complete(_happened(store, run))
    else:
        known, starts = sources.known(names or [], announced=announced, nodes=nodes, store=store)
        reached = known.reached(starts)
        for name, error in known.failures.items():
            if name in reached:
                say(f"flowkit: {error}")
        drawn = possible(known.nodes, reached)
    if as_json:
        data_json(_json(drawn))
    else:
        data(mermaid(drawn))


async def _happened(store_url: str | None, run_id: str) -> Graph:
    from flowkit.cli.render.excerpt import removed
    from flowkit.cli.render.output import say
    from flowkit.cli.resources import store_of
    from flowkit.flow.edges.happened import Step, happened

    async with store_of(options.settings_of(store_url=store_url)) as store:
        row, tasks, beside = await store.query(lambda query: _look(query, run_id))
    if row is None:
        raise NotFound("run", run_id, "'flowkit runs list' shows those that are there.")
    steps = (
        Step(task.path, task.node, task.status, task.signal, task.handler, task.unfolded, task.scope) for task in tasks
    )
    if row.trimmed:
        say(f"{removed(row)}, and are not drawn")
    return happened(row.id, row.status, steps, beside)


def _look(query: Queries, run_id: str) -> tuple[RunRow | None, list[TaskRow], Counter[tuple[str, str]]]:
    beside: Counter[tuple[str, str]] = Counter()
    page, cursor = query.runs(limit=PAGE, parent=run_id)
    while True:
        beside.update((run.node, run.status) for run in page if run.origin == "detached")
        if cursor is None:
            return query.run(run_id), query.tasks(run_id), beside
        page, cursor = query.runs(limit=PAGE, parent=run_id, after=cursor)


def _json(drawn: Graph) -> dict[str, Any]:
    return {
        "v": 1,
        "nodes": [
            {"id": vertex.id, "kind": vertex.shape, "name": vertex.name, "counts": dict(vertex.counts)}
            for vertex in drawn.vertices
        ],
        "edges": [{"from": arrow.source, "to": arrow.target, "kind": arrow.line} for arrow in drawn.arrows],
    }
