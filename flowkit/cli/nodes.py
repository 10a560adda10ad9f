"""``flowkit nodes``: the nodes of a system, who works for them, and what waits."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from flowkit.cli import options

ALIVE = 15  # seconds since its last announcement; workers announce themselves every 5

HELP = options.page(
    "List nodes, their workers and tasks.",
    "flowkit nodes",
    "flowkit nodes --json | jq '.nodes[] | select(.workers == 0)'",
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("nodes", help=HELP)(nodes)


def nodes(*, store: options.Store = None, as_json: options.Json = False) -> None:
    """Ask, print."""
    from flowkit.cli.render.output import data, data_json, say, table

    listed = options.complete(_nodes(store))
    if as_json:
        data_json({"v": 1, "nodes": listed})
        return
    if not listed:
        say("No nodes yet: flowkit worker --node NAME")
        return
    head = ("node", "workers", "running", "queued", "held", "limit")
    data(table(head, [[*(node[word] for word in head[:-1]), _limit(node)] for node in listed]))
    for node in listed:
        if not node["workers"] and node["queued"]:
            say(f"No worker for {node['node']}: flowkit worker --node {node['node']}")


def _limit(node: dict[str, Any]) -> str:
    """Its limits in a few words, such as ``5, 100/s by customer_id``."""
    said = ", ".join(str(node[word]) for word in ("limit", "rate") if node[word] is not None)
    return said + f" by {node['key']}" if node["key"] is not None else said


async def _nodes(store_url: str | None) -> list[dict[str, Any]]:
    from flowkit.cli.resources import store_of

    since = time.time() - ALIVE
    async with store_of(options.settings_of(store_url=store_url)) as store:
        counts, workers, infos = await store.query(
            lambda query: (query.nodes(), query.workers(seen_since=since), query.node_infos())
        )
    told = {name: json.loads(info) for name, info, _ in infos}
    found: dict[str, dict[str, Any]] = {}

    def entry(name: str) -> dict[str, Any]:
        empty = {"node": name, "workers": 0, "running": 0, "queued": 0, "held": 0}
        limits = {word: told.get(name, {}).get(word) for word in ("limit", "rate", "key")}
        return found.setdefault(name, empty | limits)

    for count in counts:
        entry(count.node).update(running=count.running, queued=count.queued, held=count.held)
    for worker in workers:
        for node in () if worker.stopping else json.loads(worker.announcement).get("nodes", ()):
            entry(node["name"])["workers"] += 1
    return [found[name] for name in sorted(found)]
