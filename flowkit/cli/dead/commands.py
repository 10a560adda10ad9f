"""``flowkit dead list|show|replay|discard``: messages that could not be processed. Looking never consumes."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowkit.cli import options
from flowkit.cli.dead import actions
from flowkit.cli.runs.selection import Yes
from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.store.protocol import DeadLetter
    from flowkit.store.views import DeadLetterRow

app = typer.Typer(help="Messages that could not be processed.", no_args_is_help=True, rich_markup_mode=None)

SHOWN = 4_000  # characters of a body, for people
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Numbers of dead letters.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Those with this reason.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many, and print their numbers.")]


def register(parent: typer.Typer) -> None:
    """Add the group."""
    parent.add_typer(app, name="dead")


@app.command(
    "list",
    help=options.page(
        "List dead letters, newest first.",
        "flowkit dead list",
        "flowkit dead list --reason unknown-run --json",
        "flowkit dead list --unreadable",
    ),
)
def list_letters(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many at most.")] = 50,
    reason: Reason = None,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Only count what waits in the queue that nobody decodes.")
    ] = False,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Ask, print."""
    from flowkit.cli.render.output import clock, data, data_json, say, table

    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    if unreadable:
        waiting = options.complete(actions.unreadable(settings))
        if as_json:
            data_json({"v": 1, "unreadable": waiting})
        else:
            data(f"{waiting:,} messages in {settings.namespace}.unreadable")
        return
    found, total = options.complete(actions.page(settings, reason, limit))
    if as_json:
        data_json({"v": 1, "dead": [_facts(letter, letter.size) for letter in found], "total": total})
        return
    if not found:
        say("No dead letters.")
        return
    head = ("id", "reason", "queue", "since", "run", "detail")
    rows = [
        (str(one.id), _line(one.reason), _line(one.queue), clock(one.at), one.run_id or "", _line(one.detail)[:80])
        for one in found
    ]
    data(table(head, rows))
    if total > limit:
        say(f"{total - limit:,} more: flowkit dead list --limit {total}")


@app.command(help=options.page("Show one dead letter.", "flowkit dead show 17", "flowkit dead show 17 --json"))
def show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="Its number.")],
    *,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Ask, print."""
    from flowkit.cli.render.output import clock, data, data_json

    found = options.complete(actions.find(options.settings_of(store_url=store), letter))
    if as_json:
        data_json({"v": 1, **_facts(found, len(found.body)), **_body(found.body)})
        return
    facts = {
        "id": found.id,
        "reason": found.reason,
        "queue": found.queue,
        "since": clock(found.at),
        "run": found.run_id,
        **json.loads(found.properties),
    }
    data("\n".join(f"{key:<14} {_line(str(value))}" for key, value in facts.items() if value is not None))
    if found.detail:
        data(f"\n{_clean(found.detail)}")
    data(f"\n{_readable(found.body)}")


@app.command(
    help=options.page(
        "Publish dead letters again to the queue they came from.",
        "flowkit dead replay 17 18",
        "flowkit dead replay --reason unknown-run --dry-run",
        after="A letter is removed once its message is in the queue; what fails again becomes a new one.",
    )
)
def replay(
    ids: Ids = None,
    *,
    everything: All = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
) -> None:
    """Choose, publish, remove."""
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    chosen = actions.choice(ids, reason, everything=everything)
    options.complete(actions.replay(settings, chosen, dry_run=dry_run, yes=yes))


@app.command(
    help=options.page(
        "Remove dead letters for good.",
        "flowkit dead discard 17 18",
        "flowkit dead discard --reason invalid --dry-run",
        "flowkit dead discard --unreadable --yes",
    )
)
def discard(
    ids: Ids = None,
    *,
    everything: All = False,
    reason: Reason = None,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Empty the queue of what nobody could decode.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
) -> None:
    """Choose, remove."""
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    if unreadable:
        if ids or everything or reason:
            raise UsageError("--unreadable is about a queue of the broker; dead letters are chosen without it")
        options.complete(actions.empty_unreadable(settings, dry_run=dry_run, yes=yes))
    else:
        chosen = actions.choice(ids, reason, everything=everything)
        options.complete(actions.discard(settings, chosen, dry_run=dry_run, yes=yes))


def _facts(letter: DeadLetter | DeadLetterRow, size: int) -> dict[str, Any]:
    from flowkit.cli.render.output import moment

    return {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "queue": letter.queue,
        "at": moment(letter.at),
        "run_id": letter.run_id,
        "properties": json.loads(letter.properties),
        "bytes": size,
    }


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"encoding": "utf-8", "body": body.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "body": base64.b64encode(body).decode()}


def _readable(body: bytes) -> str:
    """A body that anybody may have written: text where it is text, else hexadecimal digits."""
    try:
        text = _clean(body.decode())
    except UnicodeDecodeError:
        text = body[:SHOWN].hex(" ")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(body):,} bytes: --json has all)"


def _clean(text: str) -> str:
    """Without control characters, wherever it is printed: this is what somebody could not read already."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _line(text: str) -> str:
    return _clean(" ".join(text.split()))
