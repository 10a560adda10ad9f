"""What nodes declare: read from the files of a folder, or from what workers have announced to the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.errors import InvalidNode, NotFound, UsageError
from flowkit.streams import reserve_stdout

if TYPE_CHECKING:
    from flowkit.wire.messages import NodeInfo

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NODE", help="Where workflows begin: names, or paths ending in .py; all without it."),
]
Announced = Annotated[
    bool, typer.Option("--announced", help="Not the files: what workers have announced to the store.")
]


@dataclass
class Known:
    """Nodes as they declare themselves.

    Args:
        nodes: by name.
        failures: why the files of others cannot be used, by name.
        problems: annotations that could not be understood, by name of the node.
        where: they come from, for messages.
    """

    nodes: dict[str, NodeInfo]
    where: str
    failures: dict[str, InvalidNode] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def reached(self, starts: list[str]) -> list[str]:
        """Names of what may follow from these, themselves included; of all without any.

        Raises:
            NotFound: one of them is not there.
        """
        from flowkit.flow.edges.check import reached

        there = [*self.nodes, *self.failures]
        for name in starts:
            if name not in there:
                raise NotFound("node", name, f"{self.where} has {', '.join(sorted(there)) or 'none'}.")
        return reached(self.nodes, starts or sorted(there))


def known(starts: list[str], *, announced: bool, nodes: Path | None, store: str | None) -> tuple[Known, list[str]]:
    """Read them, and the names that were meant by ``starts``.

    Raises:
        UsageError: there is no such folder, or options that contradict each other.
    """
    if announced and nodes is not None:
        raise UsageError("--announced and --nodes contradict each other: what was announced, or the files of a folder?")
    if announced:
        return options.complete(_announced(store)), starts
    if store is not None:
        raise UsageError("--store goes with --announced; the files of a folder are in none")
    reserve_stdout()  # what node files print as they are imported is no data of ours
    return _in_files(options.settings_of(nodes_dir=nodes).nodes_dir, starts)


def _in_files(nodes_dir: Path, starts: list[str]) -> tuple[Known, list[str]]:
    from flowkit import loading
    from flowkit.worker.announce import described

    folder = loading.load_all(nodes_dir)
    names: list[str] = []
    for start in starts:
        if start.endswith(".py") or ":" in start:
            found = loading.load(start, nodes_dir)
            folder.definitions.update({definition.name: definition for definition in found})
            names += [definition.name for definition in found]
        else:
            names.append(start)
    told = {name: described(definition) for name, definition in sorted(folder.definitions.items())}
    problems = {name: said for name, (_, said) in told.items() if said}
    return Known({name: info for name, (info, _) in told.items()}, str(nodes_dir), folder.failures, problems), names


async def _announced(store_url: str | None) -> Known:
    from flowkit.cli.resources import store_of
    from flowkit.wire.messages import NodeInfo
    from flowkit.wire.stored import read_stored

    async with store_of(options.settings_of(store_url=store_url)) as store:
        found = await store.query(lambda query: query.node_infos())
    known = {name: read_stored(NodeInfo, info) for name, info, _ in found}
    return Known({name: info for name, info in known.items() if info is not None}, "the store")
