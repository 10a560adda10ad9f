"""What is generated is what is committed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return runpy.run_path(str(FOLDER / "generate.py"))["pages"]()


def test_schemas_and_settings_are_current(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        if name != "cli.md":
            assert (FOLDER / name).read_text() == text, f"docs/reference/{name} is not current; run: make docs"


def test_the_command_line_is_current(pages: dict[str, str]) -> None:
    """By its verbs, options and examples: how the lines are broken is typer's business, and changes with it."""
    assert words(pages["cli.md"]) == words((FOLDER / "cli.md").read_text()), "run: make docs"


def words(page: str) -> dict[str, set[str]]:
    parts = re.split(r"^##+ (.*)$", page, flags=re.MULTILINE)
    return {
        verb: set(re.findall(r"(?<!\S)--?[a-zA-Z][\w-]*|^ {4}flowkit .*$", text, re.MULTILINE))
        for verb, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_no_schema_is_left_over() -> None:
    messages = runpy.run_path(str(FOLDER / "generate.py"))["MESSAGES"]
    assert {path.stem for path in (FOLDER / "schemas").iterdir()} == {
        model.TYPE.removeprefix("flowkit.") for model in messages
    }
