"""``flowkit worker``: a long-lived worker on the broker."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.cli.services.control_pipe import Lifeline
    from flowkit.cli.services.lifecycle import Signals
    from flowkit.settings import Settings
    from flowkit.worker.definition import Definition
    from flowkit.worker.watchdog import Watchdog

HELD = 10  # seconds for the end after the drain, before a process is ended that cannot do it by itself

HELP = options.page(
    "Work for nodes until SIGTERM or Ctrl-C.",
    "flowkit worker --node add",
    "flowkit worker --node resize --node store --concurrency 20",
    "flowkit worker --node ./jobs/resize.py --broker amqp://worker@rabbitmq/",
    "flowkit worker --node resize --processes 4",
    after=(
        "The first signal lets started work finish, a second one stops now; neither waits for threads and child "
        "processes of abandoned work. The first connect is tried for 60 s. "
        "Exit 0, or 1 when started work had to be abandoned. With --processes a parent passes signals on, begins "
        "another process for each that dies, and exits with the worst code of its processes."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("worker", help=HELP)(worker)


def worker(
    *,
    node: Annotated[
        list[str],
        typer.Option(
            "--node", metavar="NAME", help="A file in the nodes folder, a path ending in .py, or package:attribute."
        ),
    ],
    nodes: options.Nodes = None,
    broker: options.Broker = None,
    namespace: options.Namespace = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Tasks of one node at a time, in each process.")
    ] = None,
    processes: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto", help="Worker processes, each with a connection of its own; auto: one for each core (1)."
        ),
    ] = None,
    drain_timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="How long started work may take after SIGTERM (25).")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this worker; made up when left out. Of several: NAME-1, …")
    ] = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
) -> None:
    """Parse, serve."""
    from flowkit import loading
    from flowkit.cli.app import explain
    from flowkit.cli.services.lifecycle import serve
    from flowkit.cli.services.own_log import configure
    from flowkit.worker.records import protect_own_log

    settings = options.settings_of(
        nodes_dir=nodes,
        broker_url=broker,
        namespace=namespace,
        concurrency=concurrency,
        processes=processes,
        drain_timeout=drain_timeout,
        log_level=log_level and log_level.upper(),
        log_format=log_format,
    )
    lifeline: Lifeline | None = None
    count = _count(settings)
    name = options.process_name(name, count)
    if count > 1:
        if not hasattr(os, "fork"):
            raise UsageError("--processes: this system has no fork. Start several workers with --processes 1 instead")
        lifeline = _apart(count, node, settings)  # from here on in each child
        name = _name() if name is None else f"{name}-{lifeline.number}"
    # Before node files are imported: what is logged about them is shown as all else.
    configure(settings.log_level, settings.log_format, name if lifeline else None)
    protect_own_log()
    # A node that cannot be loaded is said before anything is connected.
    definitions = loading.load_each(node, settings.nodes_dir)
    try:
        code = serve(
            settings,
            lambda signals: _work(settings, definitions, name, signals, lifeline),
            lifeline=lifeline,
            worker=name if lifeline else None,
            # One of several has a parent that kills it.
            watched=_watchdog(settings) if lifeline is None else None,
            asked=lambda now: _end_within(HELD if now else settings.drain_timeout + HELD),
        )
    except BaseException as error:  # noqa: BLE001 - it becomes a code, or goes on; said before threads can hold it up
        code = explain(error)
    _leave_nothing(code)
    raise typer.Exit(code)


def _watchdog(settings: Settings) -> contextlib.AbstractContextManager[Watchdog | None]:
    from flowkit.worker.watchdog import watchdog

    killed = "Killed; what it worked on will run again"
    return watchdog(settings.drain_timeout + HELD, HELD, settings.log_format, killed)


def _count(settings: Settings) -> int:
    if settings.processes != "auto":
        return settings.processes
    from flowkit.cli.services.cpu_count import cores
    from flowkit.settings import MOST_PROCESSES

    return min(cores(), MOST_PROCESSES)


def _apart(count: int, nodes: list[str], settings: Settings) -> Lifeline:
    """Begin several workers; returns in each of them. The parent goes no further: it exits when they have ended."""
    from flowkit.cli.services.own_log import configure
    from flowkit.cli.services.supervisor import apart

    configure(settings.log_level, settings.log_format)
    role = apart(count, ", ".join(dict.fromkeys(nodes)), settings.drain_timeout + HELD + 5)
    if isinstance(role, int):
        raise typer.Exit(role)
    return role


def _name() -> str:
    from flowkit.worker.naming import worker_name

    return worker_name()


def _leave_nothing(code: int) -> None:
    """Wait for no thread of a node; when work was abandoned, for no process either."""
    import logging

    from flowkit.worker.process_exit import leave_if_busy, terminate_children

    _end_within(HELD)  # also when nobody has asked for the end: a thread that is left may hold the interpreter's lock
    if code:
        terminate_children()
    leave_if_busy(code, lambda text: logging.getLogger(__name__).warning("%s", text, extra={"action": "threads_left"}))


def _end_within(seconds: float) -> None:
    """End the process with exit code 1, and the stacks of its threads on stderr, if it has not ended by then.

    For C code that holds the interpreter's lock: no thread of Python can end the process then, faulthandler's can.
    """
    with contextlib.suppress(ValueError, OSError, OverflowError, AttributeError):  # no stderr; or longer than it counts
        faulthandler.dump_traceback_later(seconds, exit=True)


async def _work(
    settings: Settings,
    definitions: list[Definition],
    name: str | None,
    signals: Signals,
    lifeline: Lifeline | None,
) -> int:
    from flowkit.cli.services.lifecycle import alive, connected, loop_factory, until_stopped
    from flowkit.wire.topology import Topology
    from flowkit.worker.stage import OwnThread
    from flowkit.worker.worker import Worker

    async with connected(settings, signals) as broker:
        if broker is None:
            return 0
        working = Worker(
            broker,
            Topology(settings.namespace),
            definitions,
            name=name,
            concurrency=settings.concurrency,
            drain_timeout=settings.drain_timeout,
            name_patience=3 * settings.heartbeat + 5,  # after two that it misses the broker ends a connection
            limits=settings.limits,
            stage=OwnThread(loop_factory()),
        )

        async def tell() -> None:
            await working.ready()
            # What is loaded by now stays to the end: the collector, which a worker with small tasks calls all the time,
            # need not look at it again (5 to 10 % of its CPU). What the nodes make is collected as ever.
            gc.collect()
            gc.freeze()
            if lifeline is not None:
                lifeline.ready()

        async with alive("worker", working.name, lambda: working.connected, broker, tell()):
            return await until_stopped(working.run(), signals, drain=working.stop, force=working.force)
