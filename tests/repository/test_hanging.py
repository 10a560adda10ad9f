"""A test that hangs is the only one that fails: neither its fixtures nor hypothesis keep the others from running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGING = """
import asyncio
import pytest
from hypothesis import given, settings, strategies as st


@pytest.fixture
async def stuck():
    yield
    await asyncio.Event().wait()


async def test_waits(stuck):
    await asyncio.Event().wait()


def test_waits_in_an_example():
    with asyncio.Runner() as runner:
        settings(deadline=None)(given(st.integers())(lambda number: runner.run(asyncio.Event().wait())))()


@given(st.recursive(st.integers(), st.lists, max_leaves=30))
def test_is_fine(value):
    assert value == value


async def test_is_fine_too():
    await asyncio.sleep(0)
"""


def test_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    where = [
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.hanging",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *where, "--timeout=2", str(tmp_path)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    said = ran.stdout + ran.stderr
    assert "2 failed, 2 passed, 1 error" in said, said
    assert "FAILED test_hanging.py::test_waits - tests.hanging.Hangs" in said
    assert "ERROR test_hanging.py::test_waits - tests.hanging.Hangs" in said
    assert "FAILED test_hanging.py::test_waits_in_an_example - tests.hanging.Hangs" in said
