"""``flowkit new``: a node file with a test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flowkit.cli import options
from flowkit.errors import Refused, UsageError

HELP = options.page(
    "Write a node file and a test of it.",
    "flowkit new resize",
    "flowkit new resize --nodes jobs",
    after="Nothing that is there is overwritten.",
)

NODE = '''"""What {name} does, in one sentence."""

from flowkit.log import Logger
from flowkit.node import Node

node = Node("{name}")
logger = Logger(node)


async def main():
    inputs = node.get_inputs()
    await logger.info(f"Hello, {{inputs.get('who', 'world')}}")
    return [], {{"greeted": inputs.get("who", "world")}}, "Success"  # (downstream nodes, outputs, message)


node.register_main(main)
node.run()
'''

TEST = '''"""{name} runs in this process: no service, no waiting."""

from pathlib import Path

from flowkit.testing import Simulation

NODES = Path(__file__).parent / "{folder}"


def test_{word}():
    with Simulation(NODES) as sim:
        run = sim.start("{name}", {{"who": "you"}})
        assert run.outputs() == {{"greeted": "you"}}
        assert sim.ran("{name}") == 1
'''


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("new", help=HELP)(new)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the node: letters, digits, _ and -.")],
    *,
    nodes: options.Nodes = None,
    tests: Annotated[Path, typer.Option("--tests", metavar="DIR", help="Folder for the test.")] = Path("tests"),
) -> None:
    """Check, write, say what next."""
    from flowkit.cli.render.output import data, say
    from flowkit.wire import names

    if not names.is_node(name):
        raise UsageError(f"node name {name!r}: expected {names.NODE}")
    folder = options.settings_of(nodes_dir=nodes).nodes_dir
    word = name.replace("-", "_")
    files = {
        folder / f"{name}.py": NODE.format(name=name),
        tests / f"test_{word}.py": TEST.format(name=name, word=word, folder=os.path.relpath(folder, tests)),
    }
    for path in files:
        if path.exists():
            raise Refused(f"{path} exists already; choose another name, or remove it first")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        data(str(path))
    say(f"Run it: flowkit run {name}" + ("" if nodes is None else f" --nodes {nodes}"))
