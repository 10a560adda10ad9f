"""``flowkit health``: whether the worker or coordinator in this container lives, or is ready."""

from __future__ import annotations

from typing import Annotated

import typer

from flowkit.cli import options
from flowkit.errors import UsageError

HELP = options.page(
    "Say whether workers here live or are ready.",
    "flowkit health --live",
    "flowkit health --ready --kind coordinator",
    after=(
        "It looks at all workers and coordinators begun in this folder or container; exit 1 when not. Live: the "
        "event loop turns, whatever the broker does. Ready: connected and consuming."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("health", help=HELP)(health)


def health(
    *,
    live: Annotated[bool, typer.Option("--live", help="The event loop turns.")] = False,
    ready: Annotated[bool, typer.Option("--ready", help="Connected and consuming.")] = False,
    kind: Annotated[str | None, typer.Option(metavar="worker|coordinator", help="Only those.")] = None,
    as_json: options.Json = False,
) -> None:
    """Look, print."""
    from flowkit.cli.render.output import data, data_json, say
    from flowkit.cli.services.heartbeat_file import folder, signs

    if kind not in (None, "worker", "coordinator"):
        raise UsageError(f"--kind {kind!r}: expected worker or coordinator")
    found = [sign for sign in signs() if kind in (None, sign.kind)]
    healthy = bool(found) and all(sign.live and (sign.ready or not ready) for sign in found)
    if as_json:
        data_json(
            {
                "v": 1,
                "healthy": healthy,
                "asked": "ready" if ready else "live",
                "processes": [
                    {
                        "pid": sign.pid,
                        "kind": sign.kind,
                        "name": sign.name,
                        "live": sign.live,
                        "ready": sign.ready,
                        "blocked": sign.blocked,
                    }
                    for sign in found
                ],
            }
        )
    elif not found:
        say(f"flowkit: no {kind or 'worker or coordinator'} runs here (no sign of life in {folder()})")
    for sign in () if as_json else found:
        state = (
            f"hangs: no sign of life for {sign.age:.0f} s" if not sign.live else "ready" if sign.ready else "not ready"
        )
        if sign.live and sign.blocked:
            state += f", its broker accepts no messages: {sign.blocked}"
        data(f"{sign.kind} {sign.name} (pid {sign.pid}): {state}")
    del live  # the default: --ready asks for more
    if not healthy:
        raise typer.Exit(1)
