"""``flowkit runs cancel|pause|resume|retry|signal``: what people ask of runs. ``rerun`` has a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from flowkit.cli import options
from flowkit.cli.inputs import inputs_of
from flowkit.cli.runs.selection import DryRun, Runs, Selection, Since, Where, Yes, agreed, selection
from flowkit.errors import Refused, TimedOut, UsageError

if TYPE_CHECKING:
    from flowkit.settings import Settings
    from flowkit.store.protocol import Store
    from flowkit.store.views import Queries, RunRow
    from flowkit.wire.messages import Command

PATIENCE = 10  # seconds that somebody waits for a coordinator to do it
LOOK = 0.1  # seconds between two looks into the store
BATCH = 500  # commands published together

NoWait = Annotated[bool, typer.Option("--no-wait", help=f"Do not wait (up to {PATIENCE} s) for a coordinator.")]

VERBS = {
    "cancel": (
        "Cancel runs: nothing more of them is begun.",
        "flowkit runs cancel 5f1c…",
        "flowkit runs cancel --where node=resize --since 1h --grace 30s --dry-run",
        "What workers are doing for them just now is interrupted, or may go on for --grace; its result is dropped.",
    ),
    "pause": (
        "Begin no further tasks of runs.",
        "flowkit runs pause 5f1c…",
        "flowkit runs pause --where status=running --yes",
        "What runs already ends, and its result is kept.",
    ),
    "resume": (
        "Let paused runs go on.",
        "flowkit runs resume 5f1c…",
        "flowkit runs resume --where status=paused --yes",
        "",
    ),
    "retry": (
        "Let failed runs go on from what failed.",
        "flowkit runs retry 5f1c…",
        "flowkit runs retry --where status=failed --since 1h --dry-run",
        "Finished work is kept; failed tasks, and those cancelled by that failure, are sent again.",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for kind, (summary, one, many, after) in VERBS.items():
        verb = cancel if kind == "cancel" else _verb(kind)
        app.command(kind, help=options.page(summary, one, many, after=after))(verb)
    app.command(
        "signal",
        help=options.page(
            "Send a run a signal, which ends a Wait.",
            "flowkit runs signal 5f1c… approval",
            "flowkit runs signal 5f1c… approval -F approved=true -F by=ann",
            "flowkit runs signal approval --where node=order --where tag.tenant=acme --dry-run",
            after="A signal that comes before the wait is kept for it.",
        ),
    )(signal)


def _verb(kind: str) -> Callable[..., None]:
    def command(
        runs: Runs = None,
        *,
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
        chosen = selection(runs, where, since)
        settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
        options.complete(_command(settings, kind, chosen, dry_run=dry_run, yes=yes, wait=not no_wait))

    return command


def cancel(
    runs: Runs = None,
    *,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="30s", help="How long what runs already may go on (0).")
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
    words = {} if grace is None else {"grace": options.seconds(grace, "--grace")}
    chosen = selection(runs, where, since)
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    options.complete(_command(settings, "cancel", chosen, dry_run=dry_run, yes=yes, wait=not no_wait, words=words))


def signal(
    words: Annotated[list[str], typer.Argument(metavar="[RUN] NAME", help="Id of the run, and the signal's name.")],
    *,
    input: options.Input = None,  # noqa: A002 - the flag's name
    fields: options.Fields = None,
    where: Where = None,
    since: Since = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    no_wait: NoWait = False,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
) -> None:
    """Parse, ask."""
    from flowkit.wire import bounds

    *runs, name = words
    if len(runs) > 1:
        raise UsageError("one run and the name of a signal, or only the name and --where; run ids come first")
    if not runs and not where and not since:
        raise UsageError(f"signal {name!r} for which run? Name it before the signal, or choose runs with --where")
    if not 0 < len(name) <= bounds.SIGNAL:
        raise UsageError(f"signal name {bounds.cut(name, 150)!r}: expected 1 to {bounds.SIGNAL} characters")
    chosen = selection(runs, where, since)
    sent = {"name": name, "input": inputs_of(input, fields)}
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    options.complete(_command(settings, "signal", chosen, dry_run=dry_run, yes=yes, wait=not no_wait, words=sent))


async def _command(
    settings: Settings,
    kind: str,
    chosen: Selection,
    *,
    dry_run: bool,
    yes: bool,
    wait: bool,
    words: dict[str, Any] | None = None,
) -> None:
    from flowkit.cli.render.output import data, say
    from flowkit.cli.resources import store_of

    async with store_of(settings) as store:
        rows = fitting(kind, chosen, await store.query(chosen.rows))
        if not chosen.ids or dry_run:
            say(f"{counted(len(rows))} to {kind}")
        if dry_run:
            for row in rows:
                data(row.id)
        elif not rows or not (len(rows) == 1 or chosen.ids or agreed(f"{kind} {counted(len(rows))}", yes=yes)):
            say("Nothing was done.")
        else:
            from flowkit.wire.messages import Command, CommandKind

            commands = [Command(id=uuid4(), kind=CommandKind(kind), run_id=row.id, **(words or {})) for row in rows]
            await publish(settings, commands)
            if wait:
                await _report(settings, store, commands)
            else:
                say(f"queued for {counted(len(commands))}; a coordinator will do it")


def fitting(kind: str, chosen: Selection, rows: list[RunRow]) -> list[RunRow]:
    """Those that the command makes sense for; of those that were named, all have to be.

    Raises:
        Refused: one that was named is not.
    """
    from flowkit.flow.commands import unfit
    from flowkit.wire.messages import CommandKind

    refused = {row.id: unfit(CommandKind(kind), row.id, row.status) for row in rows}
    for why in refused.values():
        if why is not None and chosen.ids:
            raise Refused(f"{why}. See 'flowkit runs show'.")
    return [row for row in rows if refused[row.id] is None]


async def publish(settings: Settings, commands: Sequence[Command]) -> None:
    """Publish commands, so many at a time that the broker keeps up."""
    from flowkit.client import Client

    async with Client(settings.broker_url, namespace=settings.namespace, listen=False) as client:
        for begin in range(0, len(commands), BATCH):
            await client.command(commands[begin : begin + BATCH])


async def _report(settings: Settings, store: Store, commands: Sequence[Command]) -> None:
    """Wait for a coordinator, and say what became of the runs.

    Raises:
        Refused: a coordinator refused some: a run changed after this process looked at it.
        TimedOut: no coordinator has done it in time.
    """
    from flowkit.cli.render.output import say

    late = {command.run_id for command in await applied(store, commands)}
    refusals = await store.query(partial(_refusals, commands))
    done = [command.run_id for command in commands if command.run_id and command.run_id not in {*late, *refusals}]
    for row in await store.query(lambda query: [query.run(run_id) for run_id in done]):
        if row is not None:
            say(f"run {row.id} is {row.status}")
    if refusals:
        why = next(iter(refusals.values()))
        more = f" and {counted(len(refusals) - 1)} more" if len(refusals) > 1 else ""
        raise Refused(f"the coordinator refused: {why}{more}. See 'flowkit dead list --reason refused'.")
    if late:
        raise queued(settings, len(late))


def _refusals(commands: Sequence[Command], query: Queries) -> dict[str, str]:
    """The reasons of the commands that were refused, by their runs."""
    asked = {command.id for command in commands}
    runs = {command.run_id for command in commands if command.run_id is not None}
    rows = [(run_id, row) for run_id in sorted(runs) for row in query.commands(run_id)]
    return {run_id: row.refused for run_id, row in rows if row.id in asked and row.refused is not None}


def queued(settings: Settings, late: int) -> TimedOut:
    """What is said of runs that no coordinator has done it for in time."""
    return TimedOut(
        f"no coordinator of namespace {settings.namespace!r} did it for {counted(late)} within {PATIENCE} s. "
        "It is queued, and done as soon as one runs: flowkit coordinator"
    )


async def applied(store: Store, commands: Sequence[Command]) -> list[Command]:
    """Wait until the store shows them applied; returns those that are not in time."""
    import asyncio

    missing = list(commands)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                missing = await store.query(partial(_unapplied, missing))
                if not missing:
                    break
                await asyncio.sleep(LOOK)
    except TimeoutError:
        pass
    return missing


def _unapplied(commands: Sequence[Command], query: Queries) -> list[Command]:
    runs = {command.run_id for command in commands if command.run_id is not None}
    applied = {row.id for run_id in runs for row in query.commands(run_id)}
    return [command for command in commands if command.id not in applied]


def counted(count: int) -> str:
    """So many runs, in words."""
    return f"{count:,} run{'' if count == 1 else 's'}"
