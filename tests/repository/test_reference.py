"""What is generated is what is committed."""

from __future__ import annotations

import runpy
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def test_the_reference_is_current() -> None:
    pages = runpy.run_path(str(FOLDER / "generate.py"))["pages"]()
    for name, text in pages.items():
        assert (FOLDER / name).read_text() == text, f"docs/reference/{name} is not current; run: make docs"


def test_no_schema_is_left_over() -> None:
    pages = runpy.run_path(str(FOLDER / "generate.py"))["MESSAGES"]
    assert {path.stem for path in (FOLDER / "schemas").iterdir()} == {
        model.TYPE.removeprefix("flowkit.") for model in pages
    }
