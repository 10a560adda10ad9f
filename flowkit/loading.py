"""From a node's name to its definition."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flowkit.errors import InvalidNode, NodeNotFound, NoNode, UsageError
from flowkit.importing import author_code, import_file, is_a
from flowkit.node import MADE, Node
from flowkit.packages import make_importable
from flowkit.wire import names
from flowkit.worker.definition import Definition, check_name

_log = logging.getLogger(__name__)


def find(nodes_dir: Path) -> list[str]:
    """The names of the node files in a folder, by their file names: nothing is imported.

    A file that holds helpers only looks the same until somebody asks for it; ``_x.py`` and tests are left out.
    """
    return sorted(
        file.stem
        for file in nodes_dir.glob("*.py")
        if names.is_node(file.stem) and not file.stem.startswith("test_") and file.stem not in ("conftest", "setup")
    )


def check_folder(nodes_dir: Path) -> None:
    """Raise ``UsageError`` unless there is such a folder."""
    if not nodes_dir.is_dir():
        raise UsageError(
            f"nodes folder {nodes_dir}: no such directory. Point --nodes at the folder that has your node files."
        )


@dataclass(frozen=True)
class Folder:
    """What a nodes folder holds.

    Args:
        definitions: of all nodes, by name.
        failures: files that cannot be used, by the name that a node in them would have.
    """

    definitions: dict[str, Definition]
    failures: dict[str, InvalidNode]


def load_all(nodes_dir: Path) -> Folder:
    """Import all node files of a folder; files that hold helpers only are left out.

    Raises:
        UsageError: there is no such folder.
    """
    check_folder(nodes_dir)
    nodes_dir = nodes_dir.absolute()  # a file may change the working directory as it is imported
    folder = Folder({}, {})
    for name in find(nodes_dir):
        try:
            found = _definitions(nodes_dir / f"{name}.py")
        except NoNode:
            continue
        except InvalidNode as error:
            folder.failures[name] = error
            continue
        for definition in found:
            # What several files provide is the one whose file has its name, as it is for whoever asks by that.
            if definition.name == name or definition.name not in folder.definitions:
                folder.definitions[definition.name] = definition
    return folder


def load_each(chosen: Iterable[str], nodes_dir: Path) -> list[Definition]:
    """Import what provides several nodes; each of ``chosen`` is what ``load`` takes, and counts once.

    Raises:
        UsageError: as ``load``.
    """
    nodes_dir = nodes_dir.absolute()  # a file may change the working directory as it is imported
    files = [str(Path(name).absolute()) if name.endswith(".py") else name for name in dict.fromkeys(chosen)]
    return [definition for name in files for definition in load(name, nodes_dir)]


def load(name: str, nodes_dir: Path) -> list[Definition]:
    """Import what provides a node.

    Args:
        name: a file in the nodes folder (``add``), a path ending in ``.py``, or ``package.module:attribute``.
        nodes_dir: the nodes folder.

    Returns:
        the definitions of all Nodes in that file; of the one Node for ``package.module:attribute``.

    Raises:
        NodeNotFound: no such file.
        InvalidNode: it cannot be imported, or holds nothing that can be run; one line that says why.
    """
    if name.endswith(".py"):
        file = Path(name)
        if not os.path.lexists(file):
            raise NodeNotFound(file.stem, _shown(file.parent), find(file.parent))
        return _definitions(file)
    if ":" in name:
        return [_attribute(name)]
    check_name(name)
    file = nodes_dir / f"{name}.py"
    if not os.path.lexists(file):
        raise NodeNotFound(name, _shown(nodes_dir), find(nodes_dir))
    found = _definitions(file)
    if name not in [definition.name for definition in found]:
        others = ", ".join(repr(definition.name) for definition in found)
        raise InvalidNode(f"node file {file} holds {others}, and no node {name!r}; name its path to use what it holds")
    return found


def _shown(folder: Path) -> str:
    """A folder as one would type it."""
    try:
        return str(folder.relative_to(Path.cwd())) if folder.is_absolute() else str(folder)
    except (ValueError, OSError):  # it is elsewhere, or the working directory is gone
        return str(folder)


def _definitions(file: Path) -> list[Definition]:
    check_name(file.stem, f"node file {file}: the file's name")
    module = import_file(file)
    with author_code(str(file)):
        nodes = _nodes_of(module, file)
        definitions = [node.define(file.stem) for node in nodes]
    if not nodes:
        raise NoNode(f"node file {file} holds no Node; it needs 'node = Node()' and a main (see 'flowkit new')")
    given = [definition.name for definition in definitions]
    twice = next((one for one in given if given.count(one) > 1), None)
    if twice is not None:
        raise InvalidNode(f"node file {file} holds several Nodes called {twice!r}; give each a name: Node({twice!r})")
    return definitions


def _nodes_of(module: ModuleType, file: Path) -> list[Node]:
    """The Nodes that a file provides: those made while it was imported, by itself or by a function of a helper.

    One that has no main counts only where a variable of the module holds it. What the file has imported from elsewhere
    counts only when it has nothing else.
    """
    bound = {id(value): value for value in list(vars(module).values()) if is_a(value, Node)}
    made = [node for node in vars(module).get(MADE, []) if node.has_main or id(node) in bound]
    if not made:
        return list(bound.values())
    for node in bound.values():
        if node not in made and Path(node.source).parent != file.parent.resolve():
            why = "is not served with this file; serve it with '--node package.module:attribute'"
            _log.warning("node file %s: node %r of %s %s", file, node.name, node.source, why,
                         extra={"action": "node_left_out"})  # fmt: skip
    return made


def _attribute(path: str) -> Definition:
    module_name, _, attribute = path.partition(":")
    make_importable(Path.cwd())
    with author_code(path):
        node = getattr(importlib.import_module(module_name), attribute, None)
        if is_a(node, Node):
            return node.definition
    raise InvalidNode(f"node {path}: {attribute!r} of {module_name} is {type(node).__name__}; expected a Node")
