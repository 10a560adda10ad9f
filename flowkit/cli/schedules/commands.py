"""``flowkit schedule add|list|remove``: runs that begin by the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowkit.cli import options
from flowkit.cli.inputs import inputs_of, tags_of
from flowkit.errors import InvalidSchedule, NotFound, Refused, UsageError

if TYPE_CHECKING:
    from flowkit.flow.schedules import Missed, Schedule
    from flowkit.settings import Settings
    from flowkit.store.protocol import Transaction
    from flowkit.store.views import Queries, ScheduleRow

app = typer.Typer(help="Runs that begin by the clock.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the schedule.")]
Line = Annotated[str, typer.Option("--cron", metavar="LINE", help="Minute, hour, day, month, weekday; or @daily.")]


def register(parent: typer.Typer) -> None:
    """Add the group."""
    parent.add_typer(app, name="schedule")


@app.command(
    help=options.page(
        "Begin a run whenever a cron line says so.",
        "flowkit schedule add nightly --cron '30 2 * * *' --node report --timezone Europe/Berlin",
        "flowkit schedule add poll --cron '*/5 8-17 * * 1-5' --node fetch -F url=https://example.org/feed",
        "flowkit schedule add invoices --cron @monthly --node invoice --missed once",
        after=(
            "Coordinators begin the runs, which are called after schedule and time: nightly-20261124T013000Z. The same "
            "once more changes nothing; other values need --replace."
        ),
    )
)
def add(
    name: Name,
    *,
    cron: Line,
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="Name of the first node.")],
    input: options.Input = None,  # noqa: A002 - the flag's name
    fields: options.Fields = None,
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Whose clocks, such as Europe/Berlin.")
    ] = "UTC",
    missed: Annotated[
        str,
        typer.Option(
            "--missed", metavar="skip|once", help="What follows when no coordinator ran: nothing, or one run."
        ),
    ] = "skip",
    overlap: Annotated[
        bool, typer.Option("--overlap", help="Begin a run although the last one has not ended.")
    ] = False,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="K=V", help="A word to find the runs by.")] = None,
    instead: Annotated[bool, typer.Option("--replace", help="Take the place of the one of that name.")] = False,
    store: options.Store = None,
) -> None:
    """Parse, check, write."""
    settings = options.settings_of(store_url=store)
    asked = replace(
        _begins(settings, node, inputs_of(input, fields), tags_of(tag)),
        name=_name(name), cron=cron, timezone=timezone, missed=_missed(missed), overlap=overlap,
    )  # fmt: skip
    options.complete(_add(settings, asked, instead=instead))


@app.command(
    "list",
    help=options.page("List schedules.", "flowkit schedule list", "flowkit schedule list --json | jq .schedules"),
)
def list_schedules(*, store: options.Store = None, as_json: options.Json = False) -> None:
    """Ask, print."""
    from flowkit.cli.render.output import data, data_json, say, table
    from flowkit.cli.schedules import description as shown

    found, coordinated_until = options.complete(_all(options.settings_of(store_url=store)))
    if as_json:
        data_json({"v": 1, "schedules": [shown.facts(row) for row in found]})
        return
    if not found:
        say("No schedules yet: flowkit schedule add NAME --cron '30 2 * * *' --node NODE")
        return
    data(table(shown.HEAD, map(shown.cells, found)))
    for trouble in shown.troubles(found, coordinated_until):
        say(trouble)


@app.command(help=options.page("Remove a schedule. Runs that it began go on.", "flowkit schedule remove nightly"))
def remove(name: Name, *, store: options.Store = None) -> None:
    """Remove."""
    options.complete(_remove(options.settings_of(store_url=store), name))


def _begins(settings: Settings, node: str, inputs: dict[str, Any], tags: dict[str, str]) -> Schedule:
    """What the runs begin with, checked."""
    from flowkit.client.client import start_message
    from flowkit.flow.schedules import Schedule
    from flowkit.wire import codec

    size = len(start_message(node, inputs, tags=tags).encode())
    if size > settings.max_message_bytes:
        raise UsageError(
            f"the inputs are too large: {size:,} bytes are over the limit of {settings.max_message_bytes:,} (setting "
            "max_message_bytes). Put the data elsewhere and pass its address."
        )
    packed, words = codec.dumps(inputs), codec.dumps(tags)
    return Schedule(name="", cron="", timezone="", node=node, inputs=packed, tags=words, created_at=0)


def _name(text: str) -> str:
    from flowkit.wire import names

    if not names.is_node(text):
        raise InvalidSchedule("schedule name", text[:120], f"expected {names.NODE_IN_WORDS}")
    return text


def _missed(text: str) -> Missed:
    from flowkit.flow.schedules import Missed

    if text not in list(Missed):
        raise UsageError(f"--missed {text!r}: expected skip or once")
    return Missed(text)


async def _add(settings: Settings, asked: Schedule, *, instead: bool) -> None:
    from flowkit.cli.render.output import say
    from flowkit.cli.resources import store_of
    from flowkit.cli.schedules.description import promise
    from flowkit.coordinator import calendars
    from flowkit.flow.schedules import comes_next

    cron = calendars.cron(asked.cron, asked.timezone)

    def work(transaction: Transaction) -> tuple[Schedule, str]:
        there, now = transaction.schedule(asked.name), transaction.now()
        if there is not None and there.asked == asked.asked:
            return there, "is there already, nothing has changed"
        if there is not None and not instead:
            raise Refused(
                f"schedule {asked.name!r} is there already, with other values ('flowkit schedule list' shows them). "
                "Add --replace to change it, or choose another name."
            )
        began = asked if there is None else replace(asked, last_run=there.last_run)
        made = comes_next(replace(began, created_at=now), now, cron.after)
        if made.next_at is None:
            raise InvalidSchedule("cron line", asked.cron, "no day within fifty years fits it")
        transaction.put_schedule(made)
        return made, "is added" if there is None else "is replaced"

    async with store_of(settings) as store:
        made, what = await store.transact(work)
        say(f"schedule {made.name} {what}: {promise(made)}")


async def _all(settings: Settings) -> tuple[list[ScheduleRow], float]:
    from flowkit.cli.resources import store_of

    def look(query: Queries) -> tuple[list[ScheduleRow], float]:
        return query.schedules(), query.coordinated_until()

    async with store_of(settings) as store:
        return await store.query(look)


async def _remove(settings: Settings, name: str) -> None:
    from flowkit.cli.render.output import say
    from flowkit.cli.resources import store_of
    from flowkit.wire import names

    async with store_of(settings) as store:
        # No schedule has an odd name, and not every database takes one.
        if not names.is_node(name) or not await store.transact(lambda transaction: transaction.remove_schedule(name)):
            raise NotFound("schedule", name[:120], "'flowkit schedule list' shows those that are there.")
        say(f"schedule {name} is removed; runs that it began go on")
