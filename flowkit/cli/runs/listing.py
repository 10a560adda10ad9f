"""``flowkit runs list|show|tree``: what ran, what runs, and why it failed. The other verbs are in files beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowkit.cli import options
from flowkit.cli.inputs import tags_of
from flowkit.cli.render.excerpt import FIRST, LAST, Every, cut, fit, indent, removed
from flowkit.errors import NotFound

if TYPE_CHECKING:
    from flowkit.store.views import Queries, RunRow, TaskRow

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")]
CHILDREN = 100  # runs that a run has begun, and that are shown with it
STATUSES = ("running", "paused", "succeeded", "failed", "cancelled")
MARKS = {"succeeded": "✔", "failed": "✖", "cancelled": "⊘", "running": "▶", "queued": "…", "held": "⏸", "waiting": "⏸"}
_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "grey", "running": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        "list",
        help=options.page(
            "List runs, newest first.",
            "flowkit runs list",
            "flowkit runs list --status failed --since 1h",
            "flowkit runs list --tag tenant=acme",
            "flowkit runs list --parent 5f1c…",
            "flowkit runs list --json --limit 1000 | jq -r '.runs[].id'",
        ),
    )(list_runs)
    app.command(
        help=options.page(
            "Show one run: inputs, outputs, tasks.",
            "flowkit runs show 5f1c…",
            "flowkit runs show 5f1c… --json | jq .outputs",
            after=f"Of over {FIRST + LAST} tasks the first and the last are shown; --all and --json have all.",
        )
    )(show)
    app.command(
        help=options.page(
            "Show the tasks of a run as a tree.",
            "flowkit runs tree 5f1c…",
            "flowkit runs tree 5f1c… --json",
            after=(
                "A chain stands flat, branches are indented, and lines end at the width of the terminal (COLUMNS). "
                f"Of over {FIRST + LAST} tasks the first and the last are shown; --all and --json have all."
            ),
        )
    )(tree)


def list_runs(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many at most.")] = 20,
    status: Annotated[str | None, typer.Option(metavar="STATUS", help=f"One of {', '.join(STATUSES)}.")] = None,
    node: Annotated[str | None, typer.Option(metavar="NAME", help="Begun at this node.")] = None,
    since: Annotated[str | None, typer.Option(metavar="1h", help="Started within this time.")] = None,
    parent: Annotated[str | None, typer.Option(metavar="RUN", help="Detached from this run, or rerun from it.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="K=V", help="With this tag.")] = None,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on from 'next' of the page before.")] = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Parse, ask, print."""
    import time

    from flowkit.cli.render.output import clock, data, data_json, duration, moment, say, table
    from flowkit.errors import UsageError

    if status is not None and status not in STATUSES:
        raise UsageError(f"--status {status!r}: expected one of {', '.join(STATUSES)}")
    oldest = time.time() - options.seconds(since, "--since") if since is not None else None
    which: dict[str, Any] = {"status": status, "node": node, "since": oldest, "parent": parent, "tags": tags_of(tag)}
    runs, following = options.complete(_ask(store, lambda query: query.runs(limit=limit, after=after, **which)))
    if as_json:
        listed = [
            {"id": run.id, "node": run.node, "status": run.status, "started_at": moment(run.started_at),
             "ended_at": moment(run.ended_at), "error": _json(run.error), "tags": _json(run.tags),
             "parent": run.parent, "origin": run.origin}
            for run in runs
        ]  # fmt: skip
        data_json({"v": 1, "runs": listed, "next": following})
        return
    if not runs:
        say("No such runs." if after or any(which.values()) else "No runs yet: flowkit start NODE")
        return
    rows = [
        (run.id, run.node, run.status, clock(run.started_at), duration(_took(run)), run.tasks, _why(run)[:80])
        for run in runs
    ]
    data(table(("run", "node", "status", "started", "took", "tasks", "message"), rows))
    if following:
        say(f"There are more: flowkit runs list --after {following}")


def show(run: RunId, *, every: Every = False, store: options.Store = None, as_json: options.Json = False) -> None:
    """Ask, print."""
    from flowkit.cli.render.output import clock, data, data_json, duration, say, table
    from flowkit.flow.schedules import name_of

    row, tasks, children = options.complete(_run_and_tasks(store, run))
    if as_json:
        data_json(_run_json(row, tasks, children))
        return
    facts = {
        "run": row.id,
        "node": row.node,
        "status": row.status,
        "parent": row.parent and (f"{row.parent} ({row.origin})" if row.origin else row.parent),
        "schedule": name_of(row.id) if row.origin == "schedule" else None,
        "started": clock(row.started_at),
        "took": duration(_took(row)),
        "tags": _text(row.tags) if row.tags not in (b"{}", b"") else "",
        "inputs": _text(row.inputs),
        "outputs": _text(row.outputs),
        "message": _why(row),
    }
    data("\n".join(f"{key:<8} {value}" for key, value in facts.items() if value))
    data("")
    head = ("path", "node", "status", "attempt", "took", "worker", "message")
    first, left_out, last = cut(tasks, every=every)
    data(table(head, [_task_cells(row, task) for task in (*first, *last)]))
    if left_out:
        say(f"The first {len(first)} and the last {len(last)}: --all shows the {left_out:,} tasks between them too")
    if row.trimmed:
        say(removed(row))
    if children:
        data("")
        data(table(("run", "node", "how", "status"), [(one.id, one.node, one.origin, one.status) for one in children]))
        if len(children) == CHILDREN:
            say(f"These are the last {CHILDREN}: flowkit runs list --parent {row.id}")


def tree(run: RunId, *, every: Every = False, store: options.Store = None, as_json: options.Json = False) -> None:
    """Ask, print."""
    from flowkit.cli.render.output import data, data_json
    from flowkit.flow.outline import outline

    row, tasks, children = options.complete(_run_and_tasks(store, run))
    if as_json:
        data_json(_run_json(row, tasks, children))
        return
    by_path = {task.path: task for task in tasks}
    first, left_out, last = cut(outline((task.path, task.unfolded) for task in tasks), every=every)
    for number, line in enumerate(first):
        _print_line(row, by_path[line.path], line.level)
        if number == 0 and row.trimmed:
            data(f"… {removed(row)}")
    if left_out:
        data(f"… {left_out:,} more tasks: --all")
    for line in last:
        _print_line(row, by_path[line.path], line.level)
    for child in (one for one in children if one.origin == "detached"):
        data(f"↗ {child.node}  detached, {child.status}  {child.id}")


def _print_line(run: RunRow, task: TaskRow, level: int) -> None:
    """Print one task of a tree, no wider than the terminal."""
    from flowkit.cli.render.output import clean, data_raw, duration, paint
    from flowkit.streams import results

    words = [task.node, _stands(run, task), duration(_task_took(task)), _why(task)[:100]]
    text = clean("  ".join(word for word in words if word), results())
    mark, before = MARKS.get(task.status, "?"), indent(level)
    text = fit(text, len(f"{before}{mark} "))
    data_raw(f"{before}{paint(mark, _COLOURS.get(task.status, 'grey'), results())} {text}")


async def _ask(store_url: str | None, question: Any) -> Any:
    from flowkit.cli.resources import store_of

    async with store_of(options.settings_of(store_url=store_url)) as store:
        return await store.query(question)


async def _run_and_tasks(store_url: str | None, run_id: str) -> tuple[RunRow, list[TaskRow], list[RunRow]]:
    """A run, its tasks, and the runs that were begun by it or from it."""

    def look(query: Queries) -> tuple[RunRow | None, list[TaskRow], list[RunRow]]:
        children, _ = query.runs(limit=CHILDREN, parent=run_id)
        return query.run(run_id), query.tasks(run_id), children[::-1]

    row, tasks, children = await _ask(store_url, look)
    if row is None:
        raise NotFound("run", run_id, "'flowkit runs list' shows those that are there.")
    return row, tasks, children


def _run_json(run: RunRow, tasks: list[TaskRow], children: list[RunRow]) -> dict[str, Any]:
    from flowkit.cli.render.output import moment

    return {
        "v": 1,
        "id": run.id,
        "node": run.node,
        "status": run.status,
        "inputs": _json(run.inputs),
        "outputs": _json(run.outputs),
        "message": run.message,
        "error": _json(run.error),
        "tags": _json(run.tags),
        "parent": run.parent,
        "origin": run.origin,
        "children": [{"id": one.id, "node": one.node, "status": one.status, "origin": one.origin} for one in children],
        "started_at": moment(run.started_at),
        "ended_at": moment(run.ended_at),
        "removed_tasks": run.trimmed,
        "tasks": [
            {
                "id": str(task.id),
                "node": task.node,
                "status": task.status,
                "attempt": task.attempt,
                "tries": task.tries,
                "path": task.path,
                "copied": _copied(run, task),
                "held_for": task.held_for,
                "due": moment(task.due),
                "signal": task.signal,
                "message": task.message,
                "error": _json(task.error),
                "worker": task.worker,
                "leased_until": moment(task.leased_until),
                "created_at": moment(task.created_at),
                "sent_at": moment(task.sent_at),
                "started_at": moment(task.started_at),
                "finished_at": moment(task.finished_at),
            }
            for task in tasks
        ],
    }


def _task_cells(run: RunRow, task: TaskRow) -> tuple[Any, ...]:
    from flowkit.cli.render.output import duration

    took = duration(_task_took(task))
    return task.path, task.node, _stands(run, task), task.attempt, took, task.worker or "", _why(task)[:80]


def _json(raw: bytes | None) -> Any:
    return None if raw is None else json.loads(raw)


def _text(raw: bytes | None, most: int = 2_000) -> str:
    text = "" if raw is None else raw.decode()
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters: --json has all)"


def _why(row: RunRow | TaskRow) -> str:
    from flowkit.flow.failures import describe

    error = _json(row.error)
    return describe(error) if isinstance(error, dict) else " ".join(row.message.split())


def _state(task: TaskRow) -> str:
    if task.status == "waiting" and task.signal:
        return f"waiting (signal {task.signal})"
    if task.leased_until is not None:
        return f"{task.status} (leased)"
    return f"held ({task.held_for})" if task.status == "held" and task.held_for else task.status


def _stands(run: RunRow, task: TaskRow) -> str:
    return f"{_state(task)} (copied)" if _copied(run, task) else _state(task)


def _copied(run: RunRow, task: TaskRow) -> bool:
    """Whether a rerun has taken it over: it ended before the run began."""
    return run.origin == "rerun" and task.finished_at is not None and task.finished_at < run.started_at


def _took(run: RunRow) -> float | None:
    return None if run.ended_at is None else run.ended_at - run.started_at


def _task_took(task: TaskRow) -> float | None:
    return None if task.finished_at is None or task.started_at is None else task.finished_at - task.started_at
