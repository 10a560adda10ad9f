"""``flowkit doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.addresses import mask
from flowkit.cli import options
from flowkit.errors import FlowKitError, UsageError

if TYPE_CHECKING:
    from flowkit.broker import Broker
    from flowkit.settings import Settings
    from flowkit.store.protocol import Store
    from flowkit.store.views import ScheduleRow, WorkerRow

HELP = options.page(
    "Find what is wrong, and say the fix.",
    "flowkit doctor",
    "flowkit doctor --json | jq '.checks[] | select(.ok | not)'",
    "flowkit doctor --audit --since 1d",
    after=(
        "It looks at Python, nodes, broker, store, clock, workers and schedules. Exit 1 when one of them is ✖. With "
        "--audit at every run too: that each result was applied once, each Gather went on once with the results in "
        "order, and nothing is left of what has ended. It only reads."
    ),
)
LIBRARIES = ("aio-pika", "aiormq", "orjson", "pydantic", "sqlalchemy", "typer", "psycopg", "uvloop", "cronsim")
STALE = 15  # seconds: three announcements missed
RECENT = 24 * 3600  # seconds: workers silent for longer are history
ALARM = 2  # seconds for the broker to confirm a message, or to say that it accepts none
SKEW = 5  # seconds that two clocks may differ: timers and leases are rough anyway


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor", help=HELP)(doctor)


def doctor(
    *,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
    audit: Annotated[bool, typer.Option("--audit", help="Look at the rows of every run too.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="1d", help="With --audit: only runs begun within this time.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Look, print."""
    settings = options.settings_of(broker_url=broker, store_url=store, namespace=namespace)
    if since is not None and not audit:
        raise UsageError("--since says which runs --audit looks at: give both")
    oldest = None if since is None else time.time() - options.seconds(since, "--since")
    groups = [_python(), _nodes(settings), _broker(settings), _store(settings)]
    if audit:
        groups.append(_audit(settings, oldest))
    checks = options.complete(_all(groups, quiet=as_json))
    if as_json:
        from flowkit.cli.render.output import data_json

        data_json({"v": 1, "ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


async def _all(groups: Sequence[AsyncIterator[Check]], *, quiet: bool) -> list[Check]:
    from flowkit.cli.render.output import data_marked

    checks = []
    for group in groups:
        async for check in group:
            checks.append(check)
            if not quiet:
                mark, colour = ("✔", "green") if check.ok else ("✖", "red")
                fix = f"\n    → {check.fix}" if check.fix else ""
                data_marked(mark, colour, f"{check.name}: {check.found}{fix}")
    return checks


async def _python() -> AsyncIterator[Check]:
    from importlib import metadata

    from flowkit.cli.version import current

    version = ".".join(map(str, sys.version_info[:3]))
    yield Check(
        "Python", sys.version_info >= (3, 11), version, "" if sys.version_info >= (3, 11) else "use 3.11 or newer"
    )
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    yield Check("libraries", ok=True, found=f"flowkit {current()}, {', '.join(found)}")


async def _nodes(settings: Settings) -> AsyncIterator[Check]:
    from flowkit import loading

    if not settings.nodes_dir.is_dir():
        # No mistake on a machine that runs coordinators only.
        yield Check("nodes", ok=True, found=f"no folder {settings.nodes_dir}")
        return
    present = sorted(loading.find(settings.nodes_dir))
    yield Check("nodes", ok=True, found=f"{len(present)} in {settings.nodes_dir}: {', '.join(present)}")


async def _broker(settings: Settings) -> AsyncIterator[Check]:
    from flowkit.cli.resources import broker_of
    from flowkit.wire.topology import Topology

    try:
        async with broker_of(settings) as broker:
            if (alarm := await broker.find_alarm(ALARM)) is not None:
                yield Check("broker", ok=False, found=f"{broker.url} answers, and accepts no messages: {alarm}",
                            fix="free memory or disk there, or raise its limit: rabbitmqctl status")  # fmt: skip
            else:
                yield Check("broker", ok=True, found=f"{broker.url} answers")
            async for check in _version(broker):
                yield check
            topology = Topology(settings.namespace)
            waiting = {}
            for queue in (topology.starts, topology.results, topology.dead, topology.unreadable):
                waiting[queue.name] = await broker.inspect(queue.name)
            if absent := [name for name, state in waiting.items() if state is None]:
                yield Check("topology", ok=False, found=f"missing: {', '.join(absent)}",
                            fix="start a coordinator, which declares them: flowkit coordinator")  # fmt: skip
                return
            yield Check("topology", ok=True, found=f"namespace {settings.namespace} is declared")
            async for check in _queues(broker, settings):
                yield check
            deaf = [name for name, state in waiting.items() if state and not state.consumers and state.ready
                    and name != topology.unreadable.name]  # fmt: skip
            found = f"messages wait in {', '.join(deaf)}" if deaf else "nothing waits for one"
            yield Check("coordinator", not deaf, found, "start one: flowkit coordinator" if deaf else "")
    except FlowKitError as error:
        yield _failed("broker", error, "check FLOWKIT_BROKER_URL, that RabbitMQ runs, and the login's permissions")


async def _queues(broker: Broker, settings: Settings) -> AsyncIterator[Check]:
    """Queues that stand with other arguments than ours, or may not be seen, and tasks that nobody takes."""
    from flowkit.cli.broker.diff import compare
    from flowkit.errors import AccessRefused
    from flowkit.wire.topology import Topology

    topology = Topology(settings.namespace)
    queues = [topology.tasks(node) for node in await _known_nodes(settings)]
    wrong = []
    for part in (*topology.standing, *queues):
        found = await compare(broker, part)
        if found.state == "differs":
            wrong.append(found.detail)
    for detail in wrong:
        yield Check("arguments", ok=False, found=detail.partition(". ")[0], fix=detail.partition(". ")[2])
    left = []
    for queue in queues:
        try:
            state = await broker.inspect(queue.name)
        except AccessRefused:
            continue
        if state is not None and state.ready and not state.consumers:
            left.append(f"{queue.name} ({state.ready:,})")
    if left:
        yield Check("tasks", ok=False, found=f"nobody takes the tasks in {', '.join(left[:5])}",
                    fix="start a worker: flowkit worker --node NAME")  # fmt: skip


async def _known_nodes(settings: Settings) -> list[str]:
    """Nodes that workers have announced, as far as the store can be asked."""
    from flowkit.cli.resources import exists, store_of

    try:
        if not exists(settings.store_url):
            return []
        async with store_of(settings) as store:
            return [name for name, _, _ in await store.query(lambda query: query.node_infos())]
    except FlowKitError:
        return []  # it is said further below


async def _version(broker: Broker) -> AsyncIterator[Check]:
    """The broker's version, and what is known to go wrong with it."""
    from flowkit.broker.rabbit import RabbitBroker

    if not isinstance(broker, RabbitBroker):
        return
    version = await broker.server_version()
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < (3, 10):
        yield Check(
            "RabbitMQ", ok=False, found=version, fix="use 3.10 or newer, for streams and at-least-once dead letters"
        )
    elif parts < (4, 0):
        # Not wrong, but said: it explains what an operator may see.
        yield Check(
            "RabbitMQ", ok=True, found=f"{version}; 4 is recommended: on 3.x every requeue counts as a delivery"
        )
    else:
        yield Check("RabbitMQ", ok=True, found=version)


async def _store(settings: Settings) -> AsyncIterator[Check]:
    from flowkit.cli.resources import exists, store_of

    try:
        if not exists(settings.store_url):
            yield Check("store", ok=True, found=f"{mask(settings.store_url)} is not there yet; a coordinator makes it")
            return
        async with store_of(settings) as store:
            yield Check("store", ok=True, found=f"{store.url} answers, its tables are current")
            yield await _clock(store)
            now = time.time()
            workers = await store.query(lambda query: query.workers(seen_since=now - RECENT))
            yield _workers(workers, now)
            found, until = await store.query(lambda query: (query.schedules(), query.coordinated_until()))
            if found:
                yield _schedules(found, until)
    except FlowKitError as error:
        yield _failed("store", error, "check FLOWKIT_STORE_URL, that the database runs, and 'flowkit db status'")


def _failed(name: str, error: FlowKitError, fix: str) -> Check:
    """A service that cannot be used; what is wrong with its address is said with the error itself."""
    found, _, advice = str(error).partition(". ")
    return Check(name, ok=False, found=found, fix=advice if isinstance(error, UsageError) and advice else fix)


async def _audit(settings: Settings, since: float | None) -> AsyncIterator[Check]:
    from flowkit.cli.doctor.audit import audit
    from flowkit.cli.render.progress import Progress
    from flowkit.cli.resources import exists, store_of

    progress = Progress("audit")
    try:
        if not exists(settings.store_url):
            return
        async with store_of(settings) as store:
            found = await audit(store, since=since, progress=lambda count: progress.update(f"{count:,} runs"))
    except FlowKitError as error:
        yield Check("audit", ok=False, found=str(error).partition(". ")[0], fix="check FLOWKIT_STORE_URL")
        return
    finally:
        progress.end()
    fix = "this should not happen: please report it, with 'flowkit runs show' of these" if found.wrong else ""
    yield Check("audit", not found.wrong, found.line(), fix)
    for run_id, problem in found.problems:
        yield Check(f"run {run_id}", ok=False, found=problem)


async def _clock(store: Store) -> Check:
    before = time.time()
    theirs = await store.transact(lambda transaction: transaction.now())
    skew = max(before - theirs, theirs - time.time(), 0)
    found = f"this machine and the store differ by {skew:.1f} s" if skew else "agrees with the store's"
    return Check("clock", skew <= SKEW, found, "" if skew <= SKEW else "synchronise both with NTP: chronyc tracking")


def _schedules(found: list[ScheduleRow], coordinated_until: float) -> Check:
    from flowkit.cli.schedules.description import troubles

    said = troubles(found, coordinated_until)
    return Check("schedules", not said, f"{len(found)} of them", " · ".join(said))


def _workers(workers: list[WorkerRow], now: float) -> Check:
    alive = [worker for worker in workers if now - worker.seen_at <= STALE and not worker.stopping]
    silent = [worker for worker in workers if now - worker.seen_at > STALE and not worker.stopping]
    if not silent:
        return Check("workers", ok=True, found=f"{len(alive)} alive")
    names = ", ".join(f"{worker.name} (for {now - worker.seen_at:.0f} s)" for worker in silent[:5])
    return Check("workers", ok=False, found=f"{len(alive)} alive; silent without a farewell: {names}",
                 fix="they died or lost the broker: look at their process and its log")  # fmt: skip
