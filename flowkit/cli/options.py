"""Options that several verbs have, spelled once, and what makes settings of them."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.settings import Settings

Broker = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="Address of RabbitMQ [FLOWKIT_BROKER_URL].")
]
Store = Annotated[str | None, typer.Option("--store", metavar="URL", help="Address of the store [FLOWKIT_STORE_URL].")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="Prefix of exchanges and queues [FLOWKIT_NAMESPACE].")
]
Nodes = Annotated[
    Path | None,
    typer.Option("--nodes", metavar="DIR", help="Folder with the node files (workers) [FLOWKIT_NODES_DIR]."),
]
Input = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="Inputs: a JSON object, a file of one, or stdin."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("-F", metavar="KEY=VALUE", help="One input; the value is JSON where it parses, else text."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR [FLOWKIT_LOG_LEVEL].")
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="Of the log on stderr [FLOWKIT_LOG_FORMAT].")
]

T = TypeVar("T")

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)?")


def page(summary: str, *examples: str, after: str = "") -> str:
    """Help of a verb: one sentence, then examples as they are typed."""
    verbatim = "\b\n"  # keeps the help from being wrapped anew
    parts = [summary, verbatim + "\n".join(f"  {example}" for example in examples)]
    return "\n\n".join([*parts, after] if after else parts)


def settings_of(**flags: Any) -> Settings:
    """The settings, with these flags above all other sources; None is a flag that was not given.

    Each misspelt environment variable is a warning on stderr, once.
    """
    from flowkit import settings

    for text in settings.unknown_variables():
        warn_once(text)
    return settings.read(flags)


@cache
def warn_once(text: str) -> None:
    """Print a warning on stderr, the first time that a command line comes to it."""
    from flowkit.cli.render.output import say

    say(f"flowkit: warning: {text}")


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine to its end."""
    import asyncio  # takes a fifth of the time that --help has

    return asyncio.run(work)


def seconds(text: str, option: str) -> float:
    """A duration such as ``90``, ``5m`` or ``1h30m`` in seconds."""
    from flowkit.wire.durations import LONGEST, UP_TO

    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise UsageError(f"{option} {text!r}: expected a duration such as 90, 30s, 5m, 1h30m or 2d")
    total = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if total > LONGEST:
        raise UsageError(f"{option} {text[:40]!r}: expected a duration {UP_TO}")
    return total


def process_name(name: str | None, processes: int = 1) -> str | None:
    """The value of ``--name``, checked; None when it was not given.

    Args:
        name: of the worker or coordinator.
        processes: how many share it; with more than one each adds its number.
    """
    from flowkit.wire import names

    longest = name if name is None or processes == 1 else f"{name}-{processes}"
    if longest is not None and not names.is_process(longest):
        numbered = f", and room for the number of its process (-{processes})" if processes > 1 else ""
        raise UsageError(f"--name {(name or '')[:120]!r}: expected {names.PROCESS_IN_WORDS}{numbered}")
    return name
