"""The ``flowkit`` command: its verbs, and the one place where errors become exit codes.

Exit codes: 0 ok · 1 the run or operation failed · 2 usage or configuration · 3 broker or store unreachable ·
4 not found · 5 timed out waiting · 6 refused or conflict · 130 interrupted.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from functools import cache
from importlib import import_module
from typing import Annotated

import typer

from flowkit import errors, streams
from flowkit.addresses import mask_within
from flowkit.cli import options, version
from flowkit.cli.render import output
from flowkit.cli.render.output import say

EXIT_CODES: tuple[tuple[type[errors.FlowKitError], int], ...] = (
    (errors.UsageError, 2),
    (errors.Unreachable, 3),
    (errors.NotFound, 4),
    (errors.TimedOut, 5),
    (errors.Refused, 6),
    (errors.FlowKitError, 1),
)

INTERRUPTED = 130

VERBS = {  # verb -> its module below ``flowkit.cli``, in the order of the help
    "run": "run",
    "worker": "services.worker",
    "coordinator": "services.coordinator",
    "start": "start",
    "logs": "logs.command",
    "runs": "runs.group",
    "nodes": "nodes",
    "check": "declared.check",
    "graph": "declared.graph",
    "dead": "dead.commands",
    "schedule": "schedules.commands",
    "broker": "broker.group",
    "db": "db",
    "config": "config",
    "doctor": "doctor.command",
    "health": "services.health",
    "new": "new",
    "completion": "completion",
    "version": "version",
}


@cache
def app(only: str | None = None) -> typer.Typer:
    """The command with its verbs.

    Args:
        only: the one verb that is needed: to import and build them all takes longer than most of them.
    """
    made = typer.Typer(
        name="flowkit",
        help="Durable workflows of plain async functions on RabbitMQ.",
        epilog="First steps: 'flowkit new hello', then 'flowkit run hello'. Something is wrong: 'flowkit doctor'.",
        no_args_is_help=True,
        add_completion=False,  # as options of every call they would crowd the help: 'flowkit completion' is the verb
        rich_markup_mode=None,  # with rich the help takes longer to import than to read
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_flowkit)
    for verb in VERBS if only is None else (only,):
        import_module(f"flowkit.cli.{VERBS[verb]}").register(made)
    return made


def _flowkit(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and exit.", callback=version.show)
    ] = False,
) -> None:
    """Options of every verb stand behind the verb."""


def main() -> None:
    """Run the command line and exit."""
    streams.prepare()
    code = 1
    try:
        code = call(sys.argv[1:])
    except Exception:  # noqa: BLE001 - a mistake of ours, said as the interpreter would
        sys.excepthook(*sys.exc_info())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing is left that Ctrl-C could interrupt with a traceback, nor is anything that would see it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Author code may have begun threads that never end, or registered what never ends with ``atexit``.
    if threading.active_count() > 1 or "flowkit.loading" in sys.modules:
        from flowkit.worker.process_exit import bound_exit, leave_if_busy

        leave_if_busy(code, lambda text: say(f"flowkit: {text}"))
        bound_exit(code)
    gc.freeze()  # nothing of it is garbage: looking through all of it once more at the end would take 25 ms
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit code; whatever went wrong has been said on stderr in one line."""
    if "_FLOWKIT_COMPLETE" in os.environ:
        from flowkit.cli import completion

        completion.prepare()
    options.warn_once.cache_clear()
    streams.escape_unencodable(sys.stdout)
    streams.escape_unencodable(sys.stderr)
    logging.getLogger("flowkit").addHandler(logging.NullHandler())  # an error is said once; services log on their own
    with streams.restored():
        try:
            named = arguments[0] if arguments else None
            code = app(named if named in VERBS else None)(arguments, prog_name="flowkit", standalone_mode=False)
            output.flush()
        except BaseException as error:  # noqa: BLE001 - nothing of it is swallowed: it becomes a code, or goes on
            return explain(error)
    if code == INTERRUPTED:  # typer has made a code of it already
        say("flowkit: interrupted")
    return code if isinstance(code, int) else 0


def explain(error: BaseException) -> int:
    """Say what went wrong in one line on stderr, and return the exit code; an error of nobody's goes on."""
    error = _cause(error) if isinstance(error, BaseExceptionGroup) else error
    met = error.__cause__ if isinstance(error, errors.Unstorable) else error  # the store met it first
    if isinstance(met, UnicodeEncodeError | TypeError) and "surrogates not allowed" in str(met):
        error = errors.UsageError("an argument or a setting holds bytes that are no UTF-8 text; expected UTF-8")
    match error:
        case errors.FlowKitError():
            say(f"flowkit: {error}")
            return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        case typer.Exit():
            return error.exit_code
        case KeyboardInterrupt() | typer.Abort():
            say("flowkit: interrupted")
            return INTERRUPTED
        case BrokenPipeError():
            # Whoever read our output has gone, and needs no message; nor may the interpreter fail to flush it again.
            streams.discard_unwritable()
            return 1
        case OSError(filename=None) if error.errno in streams.UNWRITABLE:  # typer prints help by itself
            streams.discard_unwritable()
            say(f"flowkit: stdout cannot be written: {error.strerror}")
            return 1
        case typer.TyperException():
            _explain_usage(error)
            return 2
        case _:
            raise error


def _explain_usage(error: typer.TyperException) -> None:
    text, context = error.format_message(), getattr(error, "ctx", None)
    if text.startswith("Usage:"):  # a verb that needs another one behind it
        say(text)
    else:
        text = mask_within(text)  # an address where a word was expected
        say(f"flowkit: {text.rstrip('.')}. See '{context.command_path if context else 'flowkit'} --help'.")


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together from one task group, the one to tell about: ours before any others."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        else:
            leaves.append(one)
    ours = [one for one in leaves if isinstance(one, errors.FlowKitError)]
    if ours and len(ours) == len(leaves):
        return ours[0]
    others = [one for one in leaves if not isinstance(one, errors.FlowKitError)]
    return others[0] if len(others) == 1 else group
