"""A program of a user, checked as users check theirs: by mypy and by pyright, against the installed package."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "typed"
RIGHT, WRONG = FOLDER / "user.py", FOLDER / "misspelt.py"
Found = dict[str, dict[int, str]]  # file name -> line -> message


@cache
def mypy() -> Found:
    """What ``mypy --strict`` finds in both files; the settings of this repository do not count."""
    output = _run("mypy", "--strict", "--config-file=", "--no-incremental", RIGHT.name, WRONG.name)
    found: Found = {RIGHT.name: {}, WRONG.name: {}}
    for file, line, message in re.findall(r"(?m)^(.+?):(\d+): error: (.*)$", output):
        found[file][int(line)] = message
    return found


@cache
def pyright() -> Found:
    """What pyright finds in both files."""
    output = _run("pyright", "--outputjson", "--pythonpath", sys.executable, RIGHT.name, WRONG.name)
    found: Found = {RIGHT.name: {}, WRONG.name: {}}
    for each in json.loads(output[output.index("{") :])["generalDiagnostics"]:
        if each["severity"] == "error":
            found[Path(each["file"]).name][each["range"]["start"]["line"] + 1] = each["message"]
    return found


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=170)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def wrong_lines() -> Collection[int]:
    """The lines of the statements that have to be refused."""
    body = ast.parse(WRONG.read_text()).body
    setup = next(at for at, each in enumerate(body) if isinstance(each, ast.Assign) and "SETUP" in ast.unparse(each))
    wrong = body[setup + 1 :]
    return {line.lineno for each in wrong for line in (each.body if isinstance(each, ast.AsyncFunctionDef) else [each])}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("check", [mypy, pyright])
def test_every_documented_use_passes(check: Callable[[], Found]) -> None:
    assert check()[RIGHT.name] == {}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("check", [mypy, pyright])
def test_every_misspelt_name_and_keyword_is_refused(check: Callable[[], Found]) -> None:
    assert set(check()[WRONG.name]) == wrong_lines()
    assert len(wrong_lines()) > 20
