"""``flowkit runs rerun``: a new run from the middle of an ended one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from flowkit.cli import options
from flowkit.cli.inputs import inputs_of
from flowkit.cli.render.excerpt import removed
from flowkit.cli.runs.control import NoWait, applied, counted, fitting, publish, queued
from flowkit.cli.runs.selection import DryRun, Runs, Selection, Since, Where, Yes, agreed, selection
from flowkit.errors import NotFound, Refused, UsageError

if TYPE_CHECKING:
    from flowkit.settings import Settings
    from flowkit.store.protocol import Store
    from flowkit.store.views import Queries, RunRow, TaskRow
    from flowkit.wire.messages import Command

NAMED = 10  # paths in the message that a node's name stands for several of them

HELP = options.page(
    "Begin a new run from the middle of an ended one.",
    "flowkit runs rerun 5f1c… --from ship",
    "flowkit runs rerun 5f1c… --from 0.2.1 -F amount=5",
    "flowkit runs rerun --where status=failed --where node=order --since 1h --dry-run",
    after=(
        "What does not follow from the task is taken over as it is; the task and all that follows run again, as does "
        "what had failed or was cancelled. It prints the id of the new run."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("rerun", help=HELP)(rerun)


@dataclass(frozen=True, slots=True)
class Edit:
    """What was asked for beside the runs."""

    task: str | None  # id, path, or name of a node
    inputs: dict[str, Any] | None  # in the place of those it had
    fields: dict[str, Any]  # laid over them
    new_id: str | None

    def command(self, query: Queries, run: RunRow, task: TaskRow) -> Command:
        """The command for one run."""
        from flowkit.client.ids import new_run_id
        from flowkit.wire.messages import Command, CommandKind

        words: dict[str, Any] = {"task_id": task.id, "new_run_id": self.new_id or new_run_id()}
        if self.inputs is not None or self.fields:
            had = self.inputs if self.inputs is not None else json.loads(query.task_inputs(run.id, task.id) or b"{}")
            words["input"] = had | self.fields
        return Command(id=uuid4(), kind=CommandKind.RERUN, run_id=run.id, **words)


def rerun(
    runs: Runs = None,
    *,
    task: Annotated[
        str | None,
        typer.Option("--from", metavar="TASK", help="Id or path of a task, or a node that has one task (the first)."),
    ] = None,
    input: options.Input = None,  # noqa: A002 - the flag's name
    fields: Annotated[
        list[str] | None,
        typer.Option("-F", metavar="KEY=VALUE", help="One input, laid over those that --input gives or the task had."),
    ] = None,
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="NEW", help="Id of the new run; made up when left out.")
    ] = None,
    where: Where = None,
    since: Since = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    no_wait: NoWait = False,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
) -> None:
    """Parse, choose, ask."""
    from flowkit.wire import names

    chosen = selection(runs, where, since)
    if new_id is not None and not names.is_run(new_id):
        raise UsageError(f"--id {new_id!r}: expected {names.RUN}")
    if new_id is not None and len(chosen.ids) != 1:
        raise UsageError("--id is the id of one new run: name one run to rerun")
    given = None if input is None else inputs_of(input, None)
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    edit = Edit(task, given, inputs_of(None, fields), new_id)
    options.complete(_rerun(settings, chosen, edit, dry_run=dry_run, yes=yes, wait=not no_wait))


async def _rerun(settings: Settings, chosen: Selection, edit: Edit, *, dry_run: bool, yes: bool, wait: bool) -> None:
    from flowkit.cli.render.output import data, say
    from flowkit.cli.resources import store_of

    async with store_of(settings) as store:
        if edit.new_id is not None and await store.query(partial(_run, edit.new_id)) is not None:
            raise Refused(f"run {edit.new_id!r} exists already: leave --id out, or give another one")
        rows = fitting("rerun", chosen, await store.query(chosen.rows))
        found = await store.query(partial(_tasks, rows, edit, named=bool(chosen.ids)))
        if len(found) < len(rows):
            say(f"{counted(len(rows) - len(found))} without a task {edit.task!r} left out")
        if not chosen.ids or dry_run:
            say(f"{counted(len(found))} to rerun")
        if dry_run:
            for run, task in found:
                say(f"run {run.id} from task {task.path} ({task.node})")
                data(run.id)
        elif not found or not (len(found) == 1 or chosen.ids or agreed(f"rerun {counted(len(found))}", yes=yes)):
            say("Nothing was done.")
        else:
            commands = await store.query(lambda query: [edit.command(query, *one) for one in found])
            await publish(settings, commands)
            await _report(settings, store, commands, wait=wait)


def _run(run_id: str, query: Queries) -> RunRow | None:
    return query.run(run_id)


def _made(commands: Sequence[Command], query: Queries) -> set[UUID]:
    """Those whose run is there."""
    there = ((command, query.run(command.new_run_id or "")) for command in commands)
    return {command.id for command, run in there if run is not None and run.parent == command.run_id}


def _tasks(rows: Sequence[RunRow], edit: Edit, query: Queries, *, named: bool) -> list[tuple[RunRow, TaskRow]]:
    """The task of each run to rerun it from; of runs that were not named, those without such a task are left out."""
    found = []
    for row in rows:
        try:
            found.append((row, _task(row, edit.task, query.tasks(row.id))))
        except NotFound:
            if named:
                raise
    return found


def _task(run: RunRow, text: str | None, tasks: Sequence[TaskRow]) -> TaskRow:
    """The task that an id, a path or the name of a node stands for; the first one without any.

    Raises:
        NotFound: none.
        UsageError: several.
    """
    if text is None:
        return next(task for task in tasks if task.path == "0")
    named = [task for task in tasks if text in (str(task.id), task.id.hex, task.path)]
    # A Wait has the name of the node that goes on after it, which is what people mean; it has a path like any task.
    found = named or [task for task in tasks if task.node == text and task.signal is None]
    if not found:
        gone = f" {removed(run)}." if run.trimmed else ""
        raise NotFound("task", text, f"'flowkit runs tree {run.id}' shows those of run {run.id}.{gone}")
    if len(found) > 1:
        some = ", ".join(task.path for task in found[:NAMED]) + (" …" if len(found) > NAMED else "")
        raise UsageError(f"--from {text!r}: node {text!r} has {len(found):,} tasks in run {run.id}. Say which: {some}")
    return found[0]


async def _report(settings: Settings, store: Store, commands: Sequence[Command], *, wait: bool) -> None:
    """Print the ids of the new runs; those that a coordinator has refused are not among them.

    Raises:
        Refused: there are such.
        TimedOut: no coordinator has done it in time.
    """
    from flowkit.cli.render.output import data, say

    late = list(commands) if not wait else await applied(store, commands)
    made = {command.id for command in late} | await store.query(partial(_made, commands))
    for command in commands:
        if command.id in made:
            data(str(command.new_run_id))
    if not wait:
        say(f"queued for {counted(len(commands))}; a coordinator will do it")
    elif late:
        raise queued(settings, len(late))
    elif len(made) < len(commands):
        which = ", ".join(str(command.run_id) for command in commands if command.id not in made)
        raise Refused(f"the coordinator refused to rerun {which}: see 'flowkit dead list --reason refused'")
