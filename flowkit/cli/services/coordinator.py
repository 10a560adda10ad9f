"""``flowkit coordinator``: turns starts and results into tasks."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options

if TYPE_CHECKING:
    from flowkit.cli.services.lifecycle import Signals
    from flowkit.settings import Settings

HELP = options.page(
    "Turn starts and results into tasks.",
    "flowkit coordinator",
    "flowkit coordinator --store postgresql://flowkit@db/flowkit",
    "FLOWKIT_STORE_PASSWORD_FILE=/run/secrets/db flowkit coordinator --log-format json",
    after=(
        "It runs until SIGTERM or Ctrl-C. On PostgreSQL run as many as you like, on SQLite one. The first connect "
        "is tried for 60 s. The store's tables are made, or brought up to date."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("coordinator", help=HELP)(coordinator)


def coordinator(
    *,
    broker: options.Broker = None,
    store: options.Store = None,
    namespace: options.Namespace = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this coordinator; made up when left out.")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Make this store the owner of a broker that was another one's.")
    ] = False,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
) -> None:
    """Parse, serve."""
    from flowkit.cli.services.lifecycle import serve

    settings = options.settings_of(
        broker_url=broker,
        store_url=store,
        namespace=namespace,
        log_level=log_level and log_level.upper(),
        log_format=log_format,
    )
    name = options.process_name(name)
    raise typer.Exit(serve(settings, lambda signals: _coordinate(settings, name, signals, take_over=take_over)))


async def _coordinate(settings: Settings, name: str | None, signals: Signals, *, take_over: bool) -> int:
    from flowkit.cli.services.lifecycle import alive, connected, until_stopped
    from flowkit.coordinator import Coordinator, Pace
    from flowkit.store import open_store
    from flowkit.wire.access import Logins
    from flowkit.wire.topology import Topology

    # A batch makes thousands of objects that die with it, and no cycles: to look for some after every 700, which is
    # Python's way, takes a tenth of its time.
    gc.set_threshold(50_000, 20, 50)
    name = _name() if name is None else name
    store = await open_store(settings.store_url, lock=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        broker = await stack.enter_async_context(connected(settings, signals))
        if broker is None:
            return 0
        coordinating = Coordinator(
            broker,
            store,
            Topology(settings.namespace),
            name=name,
            limits=settings.limits,
            pace=Pace(
                lease_after=settings.lease_after, lease_silence=settings.lease_silence, retention=settings.retention
            ),
            # The lock on an SQLite file says so; on PostgreSQL others may be at work.
            alone=settings.store_url.startswith("sqlite:"),
            take_over=take_over,
            logins=Logins(settings.logins),
        )

        async def drain() -> bool:
            coordinating.stop()
            return False  # it takes no work that could be abandoned: what is not acknowledged comes again

        await stack.enter_async_context(alive("coordinator", name, lambda: coordinating.ready, broker))
        return await until_stopped(coordinating.run(), signals, drain=drain)


def _name() -> str:
    import os
    import secrets
    import socket

    return f"{socket.gethostname().partition('.')[0]}-{os.getpid()}-{secrets.token_hex(2)}"
