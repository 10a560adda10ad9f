"""``flowkit runs explain``: why a run is not done, and what to do."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer

from flowkit.cli import options
from flowkit.cli.nodes import ALIVE
from flowkit.errors import FlowKitError, NotFound

if TYPE_CHECKING:
    from flowkit.broker import QueueState
    from flowkit.flow.explain import Around, Reason
    from flowkit.flow.slots import NodeLimit
    from flowkit.settings import Settings
    from flowkit.store.views import Queries, RunRow, SlotCount, TaskRow, WorkerRow

SHOWN = 50  # tasks, for people
ALARM = 1.0  # seconds for the broker to confirm a message, or to say that it accepts none


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        "explain",
        help=options.page(
            "Say why a run is not done, and what to do.",
            "flowkit runs explain 5f1c…",
            "flowkit runs explain 5f1c… --json | jq '.tasks[].kind'",
            after="For each outstanding task it asks the store, the workers' announcements and the task's queue.",
        ),
    )(explain)


def explain(
    run: str = typer.Argument(metavar="RUN", help="Id of the run."),
    *,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Gather, decide, print."""
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    row, tasks = options.complete(_explained(settings, run))
    if as_json:
        _print_json(row, tasks)
    else:
        _print(row, tasks)


@dataclass(frozen=True, slots=True)
class Explained:
    """An outstanding task and why it is not done."""

    task: TaskRow
    reason: Reason


async def _explained(settings: Settings, run_id: str) -> tuple[RunRow, list[Explained]]:
    from flowkit.cli.resources import store_of
    from flowkit.flow.explain import explain
    from flowkit.flow.state import RunStatus
    from flowkit.store.explaining import stuck

    async with store_of(settings) as store:
        now = time.time()
        row, outstanding, workers = await store.query(
            lambda query: (
                query.run(run_id),
                query.tasks(run_id, outstanding=True),
                query.workers(seen_since=now - ALIVE),
            )
        )
        if row is None:
            raise NotFound("run", run_id, "'flowkit runs list' shows those that are there.")
        outstanding = outstanding if row.ended_at is None else []
        known = await store.query(partial(_known, run_id, outstanding))
    around = await _around(settings, outstanding, workers, known)
    paused = row.status == RunStatus.PAUSED
    return row, [
        Explained(task, explain(stuck(task, paused=paused, inputs=known.inputs.get(task.id)), around[task.id], now))
        for task in outstanding
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows beside the rows of the tasks."""

    nodes: dict[str, dict[str, Any]]  # as they were announced last
    slots: dict[str, tuple[NodeLimit | None, SlotCount]]  # that hold some of the tasks
    refusals: dict[str, str]  # why queues of some of the nodes refuse tasks
    inputs: dict[UUID, bytes]  # of handlers (on_error) among the tasks that are shown


def _known(run_id: str, tasks: list[TaskRow], queries: Queries) -> Known:
    if not tasks:
        return Known({}, {}, {}, {})
    told = {name: json.loads(info) for name, info, _ in queries.node_infos()}
    given = ((task.id, queries.task_inputs(run_id, task.id)) for task in tasks[:SHOWN] if task.handler)
    inputs = {task_id: found for task_id, found in given if found is not None}
    return Known(told, _slots(tasks, told, queries), _refusals(tasks, queries), inputs)


def _slots(
    tasks: list[TaskRow], told: dict[str, dict[str, Any]], queries: Queries
) -> dict[str, tuple[NodeLimit | None, SlotCount]]:
    """What the slots are like that hold some of the tasks."""
    from flowkit.flow.slots import NodeLimit, node_of
    from flowkit.flow.state import LIMIT

    names = {task.slot for task in tasks if task.slot is not None and task.held_for == LIMIT}
    if not names:
        return {}
    limits = {
        name: NodeLimit(info.get("limit"), info.get("rate"), info.get("key"))
        for name, info in told.items()
        if info.get("limit") is not None or info.get("rate") is not None
    }
    return {slot: (limits.get(node_of(slot)), count) for slot, count in queries.slots(names).items()}


def _refusals(tasks: list[TaskRow], queries: Queries) -> dict[str, str]:
    """Why the queues of some of the tasks refuse messages, where a coordinator noted it lately."""
    from flowkit.flow.refusals import key_of, read_reason

    unsent = sorted({task.node for task in tasks if task.sent_at is None})
    now = time.time()
    return {node: why for node in unsent if (why := read_reason(queries.meta(key_of(node)), now)) is not None}


async def _around(
    settings: Settings,
    tasks: list[TaskRow],
    workers: list[WorkerRow],
    known: Known,
) -> dict[UUID, Around]:
    """What there is around each task, of all that can tell."""
    from flowkit.flow.explain import Around

    # As JSON: the coordinator has read them, and the models of all messages would take longer than all the rest here.
    heard = [json.loads(worker.announcement) for worker in workers if not worker.stopping]
    taken = {(UUID(entry[0]), entry[1]): (one["worker"], _seconds(entry[2])) for one in heard
             for entry in one.get("running", ())}  # fmt: skip
    nodes = {task.node for task in tasks}
    serving = {node: sum(any(info["name"] == node for info in one.get("nodes", ())) for one in heard) for node in nodes}
    unsent = any(task.sent_at is None and task.due is None for task in tasks)
    states, coordinators, blocked = await _queues(settings, nodes, unsent=unsent) if tasks else ({}, None, None)
    found = {}
    for task in tasks:
        by, since = taken.get((task.id, task.attempt), (None, None))
        state = states.get(task.node)
        limit, count = known.slots.get(task.slot or "", (None, None))
        found[task.id] = Around(
            workers=serving[task.node],
            announced=task.node in known.nodes,
            taken_by=by,
            taken_since=since,
            ready=state.ready if state else None,
            consumers=state.consumers if state else None,
            coordinators=coordinators,
            blocked=blocked,
            refusal=known.refusals.get(task.node),
            limit=limit,
            slot_out=count.out if count else None,
            slot_ending=count.ending if count else 0,
            slot_held=count.held if count else None,
        )
    return found


def _seconds(since: str | None) -> float | None:
    return None if since is None else datetime.fromisoformat(since).timestamp()


async def _queues(
    settings: Settings, nodes: set[str], *, unsent: bool
) -> tuple[dict[str, QueueState], int | None, str | None]:
    """The nodes' queues, how many coordinators read results, and why the broker accepts no messages.

    Nothing without a broker, and that is said. The last is asked only where something is unsent.
    """
    from flowkit.cli.render.output import say
    from flowkit.cli.resources import broker_of
    from flowkit.wire.topology import Topology

    topology = Topology(settings.namespace)
    try:
        async with broker_of(settings) as broker:
            results = await broker.inspect(topology.results.name)
            states = {node: await broker.inspect(topology.tasks(node).name) for node in sorted(nodes)}
            blocked = await broker.find_alarm(ALARM) if unsent else None
    except FlowKitError as error:
        say(f"flowkit: {error} What follows is from the store alone.")
        return {}, None, None
    there = {node: state for node, state in states.items() if state is not None}
    return there, results.consumers if results else 0, blocked


def _print(row: RunRow, tasks: list[Explained]) -> None:
    from flowkit.cli.render.output import data, say

    text, hint = _whole(row, tasks)
    data(text + _arrow(hint, ""))
    for one in tasks[:SHOWN]:
        data(f"  {one.task.path}  {one.task.node}: {one.reason.text}{_arrow(one.reason.hint, '    ')}")
    if len(tasks) > SHOWN:
        say(f"{len(tasks) - SHOWN:,} more tasks: --json has all")


def _print_json(row: RunRow, tasks: list[Explained]) -> None:
    from flowkit.cli.render.output import data_json, moment

    text, hint = _whole(row, tasks)
    data_json(
        {
            "v": 1,
            "id": row.id,
            "status": row.status,
            "text": text,
            "hint": hint,
            "tasks": [
                {
                    "id": str(one.task.id),
                    "path": one.task.path,
                    "node": one.task.node,
                    "status": one.task.status,
                    "attempt": one.task.attempt,
                    "due": moment(one.task.due),
                    "kind": one.reason.kind,
                    "text": one.reason.text,
                    "hint": one.reason.hint,
                }
                for one in tasks
            ],
        }
    )


def _whole(row: RunRow, tasks: list[Explained]) -> tuple[str, str]:
    """What is to be said of the run itself, and what to do."""
    from flowkit.cli.render.output import clock
    from flowkit.store.explaining import on_one_line

    if row.ended_at is not None:
        why = " ".join(row.message.split()) if row.error is None else on_one_line(row.error)
        where = _node(row.error)
        text = f"run {row.id} {row.status}{where} at {clock(row.ended_at)}" + (f": {why}" if why else "")
        return text, f"flowkit runs retry {row.id}" if row.status == "failed" else ""
    count = f"{len(tasks):,} task{'' if len(tasks) == 1 else 's'} outstanding" if tasks else "nothing is outstanding"
    return f"run {row.id} is {row.status}, {count}", f"flowkit runs resume {row.id}" if row.status == "paused" else ""


def _arrow(hint: str, indent: str) -> str:
    return f"\n{indent}→ {hint}" if hint else ""


def _node(raw: bytes | None) -> str:
    node = json.loads(raw).get("node") if raw is not None else None
    return f" in node {node}" if node else ""
