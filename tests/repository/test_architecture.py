"""The page about the architecture lists what is there, in the order in which imports point down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
TABLE = re.findall(r"^\| (`[^|]+`) \| (.*) \|$", PAGE, re.MULTILINE)


def layers() -> list[list[str]]:
    """The layers of the contract ``Imports point down``, top first, and the modules of each."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (down,) = (each for each in contracts if each["name"] == "Imports point down")
    return [[name.removeprefix("flowkit.") for name in layer.split(" | ")] for layer in down["layers"]]


def listed() -> list[str]:
    """The modules of the page's table, top first."""
    return [re.sub(r"(/|\.py)$", "", name) for names, _ in TABLE for name in re.findall(r"`([\w/.]+)`", names)]


def test_every_module_is_listed_once() -> None:
    there = [path for path in (ROOT / "flowkit").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert sorted(listed()) == sorted(path.stem for path in there if path.stem != "__init__")


def test_they_are_listed_in_the_order_of_their_layers() -> None:
    level = {name: number for number, layer in enumerate(layers()) for name in layer}
    assert set(level) == set(listed())
    assert listed() == sorted(listed(), key=level.__getitem__)


def test_it_names_those_who_read_the_settings() -> None:
    (told,) = (text for names, text in TABLE if names == "`settings.py`")
    readers = {
        path.relative_to(ROOT / "flowkit").parts[0]
        for path in (ROOT / "flowkit").rglob("*.py")
        if re.search(r"^\s*from flowkit(\.settings import| import .*\bsettings\b)", path.read_text(), re.MULTILINE)
    }
    assert set(re.findall(r"`(\w+(?:/|\.py))`", told)) == {f"{each}/" if "." not in each else each for each in readers}
