"""From a node's name to its definition: node files are imported here, and nowhere else."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flowkit.errors import InvalidNode, NodeNotFound, NoNode, UsageError
from flowkit.node import Node, hosted
from flowkit.wire import names
from flowkit.worker.definition import Definition, check_name
from flowkit.worker.records import capture

_PREFIX = "flowkit_nodes"  # a node called json must not become the module json


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
        if not file.is_file():
            raise NodeNotFound(file.stem, str(file.parent), find(file.parent))
        return _definitions(file)
    if ":" in name:
        return [_attribute(name)]
    check_name(name)
    file = nodes_dir / f"{name}.py"
    if not file.is_file():
        raise NodeNotFound(name, str(nodes_dir), find(nodes_dir))
    found = _definitions(file)
    if name not in [definition.name for definition in found]:
        others = ", ".join(repr(definition.name) for definition in found)
        raise InvalidNode(f"node file {file} holds {others}, and no node {name!r}; name its path to use what it holds")
    return found


def _definitions(file: Path) -> list[Definition]:
    check_name(file.stem, f"node file {file}: the file's name")
    module = _import_file(file.resolve())
    nodes = list({id(value): value for value in vars(module).values() if isinstance(value, Node)}.values())
    # What was imported from another node file belongs there, unless this file has nothing else.
    nodes = [node for node in nodes if node.source == module.__file__] or nodes
    if not nodes:
        raise NoNode(f"node file {file} holds no Node; it needs 'node = Node()' and a main (see 'flowkit new')")
    definitions = [node.define(file.stem) for node in nodes]
    given = [definition.name for definition in definitions]
    twice = next((one for one in given if given.count(one) > 1), None)
    if twice is not None:
        raise InvalidNode(f"node file {file} holds several Nodes called {twice!r}; give each a name: Node({twice!r})")
    return definitions


def _attribute(path: str) -> Definition:
    module_name, _, attribute = path.partition(":")
    _importable(Path.cwd())
    with _author_code(path):
        module = importlib.import_module(module_name)
    node = getattr(module, attribute, None)
    if not isinstance(node, Node):
        raise InvalidNode(f"node {path}: {attribute!r} of {module_name} is {type(node).__name__}; expected a Node")
    return node.definition


def _import_file(file: Path) -> ModuleType:
    name = f"{_PREFIX}.{file.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(file):
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _importable(file.parent)  # for the helpers beside it
    sys.modules[name] = module  # pydantic and dataclasses look a class's module up here
    try:
        with _author_code(str(file)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    # At the end: a helper called json.py must not hide the standard library from everybody.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@contextmanager
def _author_code(where: str) -> Iterator[None]:
    """Let Nodes know that a worker imports them, and say in one line what goes wrong."""
    capture()
    token = hosted.set(True)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except UsageError as error:
        raise InvalidNode(f"node {where}: {error}") from None
    except BaseException as error:  # noqa: BLE001 - the author's code, sys.exit() included
        raise InvalidNode(f"node {where}{_line(error, where)}: {type(error).__name__}: {_first_line(error)}") from None
    finally:
        hosted.reset(token)


def _line(error: BaseException, file: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _first_line(error: BaseException) -> str:
    return (error.msg if isinstance(error, SyntaxError) else str(error)).partition("\n")[0]
