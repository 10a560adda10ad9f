"""``flowkit logs``: what the nodes log, of everything or of one run, as history and live."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.errors import NotFound, StoreUnreachable, UsageError

if TYPE_CHECKING:
    from flowkit.broker import Broker
    from flowkit.settings import Settings
    from flowkit.wire.messages import Log
    from flowkit.wire.topology import Topology

HELP = options.page(
    "Print what nodes log, history and live.",
    "flowkit logs -f",
    "flowkit logs 5f1c… -f",
    "flowkit logs --since 10m --node resize --level WARNING",
    "flowkit logs --grep 'timed? out' --json | jq .message",
    after="Without RUN it reads the log stream of the broker, with RUN the archive in the store and then the stream.",
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("logs", help=HELP)(logs)


def logs(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of a run.", show_default=False)] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    number: Annotated[int | None, typer.Option("-n", min=0, help="The last lines only (100 without RUN).")] = None,
    since: Annotated[str | None, typer.Option(metavar="10m", help="Not older than this.")] = None,
    node: Annotated[str | None, typer.Option(metavar="NAME", help="Of this node.")] = None,
    level: Annotated[str | None, typer.Option(metavar="LEVEL", help="Of this level and above.")] = None,
    grep: Annotated[str | None, typer.Option(metavar="RE", help="Whose message this regular expression finds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one log message a line, as on the wire.")] = False,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
) -> None:
    """Parse, read, print."""
    from flowkit.cli.render import log_lines

    if level is not None and level.upper() not in log_lines.LEVELS:
        raise UsageError(f"--level {level!r}: expected one of {', '.join(log_lines.LEVELS)}")
    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as error:
        raise UsageError(f"--grep {grep!r}: no regular expression: {error}") from None
    oldest = time.time() - options.seconds(since, "--since") if since is not None else None
    wanted = Wanted(run, node, log_lines.rank(level) if level else 0, pattern, oldest)
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    options.complete(_print(settings, wanted, _last(number, wanted), follow=follow, as_json=as_json))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines."""

    run: str | None = None
    node: str | None = None
    rank: int = 0
    pattern: re.Pattern[str] | None = None
    since: float | None = None

    def __contains__(self, log: Log) -> bool:
        from flowkit.cli.render.log_lines import rank

        return (
            (self.run is None or log.run_id == self.run)
            and (self.node is None or log.node == self.node)
            and rank(log.level) >= self.rank
            and (self.since is None or log.ts >= self.since)
            and (self.pattern is None or self.pattern.search(log.message) is not None)
        )

    @property
    def everything(self) -> bool:
        """Whether no line is left out."""
        return self == Wanted()


def _last(number: int | None, wanted: Wanted) -> int | None:
    """How many lines of history: a run's are all of interest, a whole system's are not."""
    return number if number is not None else None if wanted.run or wanted.since else 100


async def _print(settings: Settings, wanted: Wanted, last: int | None, *, follow: bool, as_json: bool) -> None:
    from flowkit.cli.logs.stream import stream
    from flowkit.cli.render import log_lines
    from flowkit.cli.render.output import data_raw, say
    from flowkit.cli.resources import broker_of
    from flowkit.streams import results
    from flowkit.wire.topology import Topology

    def show(log: Log) -> None:
        text = log.encode().decode() if as_json else log_lines.show(log, results(), run=wanted.run is None)
        data_raw(text, flush=follow)

    topology = Topology(settings.namespace)
    offset: int | str = "first"
    shown: set[tuple[str | None, int | None]] = set()
    archived = False
    if wanted.run is not None:
        try:
            history, offset = await _archive(settings, wanted, may_come=follow)
        except StoreUnreachable as error:
            say(f"flowkit: {error} Reading the log stream only.")
        else:
            archived = True
            for log in history if last is None else history[len(history) - min(last, len(history)) :]:
                show(log)
            shown = {(log.worker, log.seq) for log in history if log.seq is not None}
    if archived and not follow:
        return
    async with broker_of(settings) as broker:
        if not archived:
            offset = await _print_history(broker, topology, wanted, last, show)
        if follow:
            async for log in stream(broker, topology, offset, quiet=None):
                if log in wanted and (log.worker, log.seq) not in shown:
                    show(log)


async def _archive(settings: Settings, wanted: Wanted, *, may_come: bool) -> tuple[list[Log], int | str]:
    """Archived lines, and the offset where the stream goes on: read first, so that nothing lies between.

    Raises:
        NotFound: neither the run nor a line of it is there, and it is not waited for.
    """
    from flowkit.cli.resources import store_of

    async with store_of(settings) as store:
        position, run, found = await store.query(
            lambda query: (
                query.archive_offset(),
                query.run(wanted.run or ""),
                query.logs(run_id=wanted.run, node=wanted.node, since=wanted.since, limit=None),
            )
        )
    if run is None and not found and not may_come:
        raise NotFound("run", wanted.run or "", "'flowkit runs list' shows those that are there.")
    return [log for log in found if log in wanted], "first" if position is None else position + 1


async def _print_history(
    broker: Broker, topology: Topology, wanted: Wanted, last: int | None, show: Callable[[Log], None]
) -> int | str:
    """The stream up to now; returns the offset of what comes next."""
    from flowkit.cli.logs.stream import QUIET, Reached, newest, stream

    begin: int | str = "first"
    if last is not None and wanted.everything:
        # Each message has one line at least, so the last n lines are in the last n messages.
        last_one = await newest(broker, topology)
        begin = "first" if last_one is None else max(0, last_one - last + 1)
    reached = Reached()
    kept: deque[Log] = deque(maxlen=last)
    async for log in stream(broker, topology, begin, quiet=QUIET, reached=reached):
        if log in wanted:
            kept.append(log)
    for log in kept:
        show(log)
    return "first" if reached.offset is None else reached.offset + 1
