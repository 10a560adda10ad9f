"""From a folder with node files to the package that its files are modules of.

A child process that ``multiprocessing`` spawns imports by name what it unpickles. It has the ``sys.path`` of its parent
and nothing else; so each folder gets an entry there that only this module reads, and a child gives the same folders the
same numbers.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

_ROOT = "flowkit_nodes"
_ENTRY = f"{_ROOT}:"  # before a folder in sys.path; Python ignores entries that are no folders
_folders: list[str] = []  # by number, from 1 on


def open_package() -> list[str]:
    """The path of the package ``flowkit_nodes`` itself, which is that of the first folder; called once, by it."""
    entries = [entry for entry in sys.path if isinstance(entry, str) and entry.startswith(_ENTRY)]
    _folders.extend(entry.removeprefix(_ENTRY) for entry in entries)
    for number in range(2, len(_folders) + 1):
        _make_package(number)
    return _folders[:1]


def package_of(folder: Path) -> str:
    """The name of the package for the files of a folder; it can be imported from now on, in child processes too.

    A folder with an ``__init__.py`` is a package already, and keeps its name. Of the others the first is
    ``flowkit_nodes``, and the next ones are ``flowkit_nodes.2`` and so on, so that several may have a file of one name.

    Args:
        folder: absolute, with symbolic links resolved.
    """
    make_importable(folder)  # for the helpers beside a node file
    if (folder / "__init__.py").is_file() and (name := _existing_package(folder)) is not None:
        return name
    package = importlib.import_module(_ROOT)
    path = str(folder)
    if path not in _folders:
        _folders.append(path)
    if _ENTRY + path not in sys.path:
        sys.path.append(_ENTRY + path)
    number = _folders.index(path) + 1
    if number == 1:
        package.__path__[:] = [path]
        return _ROOT
    return _make_package(number)


def make_importable(folder: Path) -> None:
    """Let the modules in a folder be imported by their plain names."""
    # At the end: a helper called json.py must not hide the standard library from everybody.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _existing_package(folder: Path) -> str | None:
    """The dotted name of a folder with an ``__init__.py``; None when that name means another package."""
    names = [folder.name]
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
        names.insert(0, folder.name)
    make_importable(folder.parent)
    try:
        spec = importlib.util.find_spec(names[0])
    except (ImportError, ValueError):
        return None
    found = [] if spec is None else list(spec.submodule_search_locations or [])
    return ".".join(names) if any(Path(each).resolve() == folder for each in found) else None


def _make_package(number: int) -> str:
    name = f"{_ROOT}.{number}"  # no file of the first folder can be a node of this name
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [_folders[number - 1]]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name
