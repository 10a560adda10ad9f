"""``flowkit completion``: the shell's completion script."""

from __future__ import annotations

from typing import Annotated

import typer

from flowkit.cli import options
from flowkit.errors import UsageError

SHELLS = ("bash", "zsh", "fish")

HELP = options.page(
    "Print the completion script of a shell.",
    'eval "$(flowkit completion bash)"',
    "flowkit completion zsh > ~/.zfunc/_flowkit",
    "flowkit completion fish > ~/.config/fish/completions/flowkit.fish",
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("completion", help=HELP)(completion)


def prepare() -> None:
    """Let typer answer a shell that asks: it does so by itself only with its own options for completion."""
    from typer._completion_classes import completion_init

    completion_init()


def completion(shell: Annotated[str, typer.Argument(metavar="|".join(SHELLS), help="Which shell.")]) -> None:
    """Print it."""
    from typer._completion_shared import get_completion_script

    from flowkit.cli.render.output import data

    if shell not in SHELLS:
        raise UsageError(f"shell {shell!r}: expected one of {', '.join(SHELLS)}")
    data(get_completion_script(prog_name="flowkit", complete_var="_FLOWKIT_COMPLETE", shell=shell))
