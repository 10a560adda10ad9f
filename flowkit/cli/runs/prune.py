"""``flowkit runs prune``: forget runs that ended long ago."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.cli.runs.selection import PAGE, agreed

if TYPE_CHECKING:
    from flowkit.settings import Settings
    from flowkit.store.views import Queries

STEP = 500  # rows in one transaction: a coordinator that waits for it hardly notices
PAUSE = 0.02  # seconds between two: SQLite lets nobody in who only comes by now and then


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        "prune",
        help=options.page(
            "Forget runs that ended long ago, with their tasks and logs.",
            "flowkit runs prune --older-than 30d --dry-run",
            "flowkit runs prune --older-than 30d --yes",
            after=(
                "It goes in small steps, so that coordinators go on meanwhile. They do the same by themselves with "
                "what is older than FLOWKIT_RETENTION_DAYS (30)."
            ),
        ),
    )(prune)


def prune(
    *,
    older_than: Annotated[str, typer.Option("--older-than", metavar="30d", help="Ended longer ago than this.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: options.Store = None,
) -> None:
    """Parse, count, remove."""
    before = time.time() - options.seconds(older_than, "--older-than")
    options.complete(_prune(options.settings_of(store_url=store), before, dry_run=dry_run, yes=yes))


async def _prune(settings: Settings, before: float, *, dry_run: bool, yes: bool) -> None:
    import asyncio

    from flowkit.cli.render.output import clock, say
    from flowkit.cli.resources import store_of

    async with store_of(settings) as store:
        count = await store.query(lambda query: _count(query, before))
        say(f"{count:,} runs ended before {clock(before)}")
        if dry_run or not count or not agreed(f"remove {count:,} runs for good", yes=yes):
            return
        removed = 0
        while step := await store.transact(lambda transaction: transaction.prune(before, STEP)):
            removed += step.runs
            await asyncio.sleep(PAUSE)
        say(f"{removed:,} runs removed")


def _count(query: Queries, before: float) -> int:
    count, cursor = 0, None
    while True:
        page, cursor = query.runs(limit=PAGE, after=cursor)
        count += sum(row.ended_at is not None and row.ended_at < before for row in page)
        if cursor is None:
            return count
