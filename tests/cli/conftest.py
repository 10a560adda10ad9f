from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli.app import call
from tests.logging_state import restored_logging

ADD = """
from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)

async def main():
    inputs = node.get_inputs()
    await logger.info("adding")
    return [], {"sum": inputs["a"] + inputs["b"]}, "Success"

node.register_main(main)
node.run()
"""


class Said:
    """What a command line said: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to stand in, with one node, and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("FLOWKIT_") and not name.startswith("FLOWKIT_TEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "add.py").write_text(ADD)
    return tmp_path


@pytest.fixture(autouse=True)
def own_log():
    """Verbs that log configure it for their process, which is the test run's here."""
    with restored_logging():
        yield


@pytest.fixture(autouse=True)
def own_signals():
    """A service ignores its signals when it has ended, and child processes of the test run would inherit that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def flowkit(capsys) -> Callable[..., Said]:
    """Run a command line in this process."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = call(list(arguments))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.Popen]:
    """Begin a command line as a process; it is ended with the test."""
    begun: list[subprocess.Popen] = []

    def begin(*arguments: str, **words: Any) -> subprocess.Popen:
        command = [sys.executable, "-m", "flowkit.cli", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, **(pipes | words)))
        return begun[-1]

    yield begin
    for one in begun:
        if one.poll() is None:
            one.kill()
        one.communicate()
