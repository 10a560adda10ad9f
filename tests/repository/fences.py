"""The fenced blocks of a Markdown file, and what it takes to run those that are commands.

What stands behind the language in a block's first line tells the tests about it, and is shown nowhere:

    ```python title="nodes/words.py"     a file to write
    ```console                           commands behind `$ `, then their output on stdout where it matters
    ```console exit=1                    … which end with this code
    ```console background                … which go on running until the page is done, and then stop in good order
    ```python                            code to compile
    ```text, or nothing                  to read
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BIN = Path(sys.executable).parent
_FENCE = re.compile(r"^```(?P<language>\w*) *(?P<about>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fence:
    page: str
    line: int
    language: str
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def title(self) -> str | None:
        found = re.search(r'title="([^"]+)"', self.about)
        return found and found[1]

    @property
    def exit_code(self) -> int:
        found = re.search(r"exit=(\d+)", self.about)
        return int(found[1]) if found else 0

    @property
    def background(self) -> bool:
        return "background" in self.about

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with the output that stands below it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output.strip()


def fences(path: Path) -> list[Fence]:
    text = path.read_text()
    return [
        Fence(path.name, text.count("\n", 0, found.start()) + 1, found["language"], found["about"], found["text"])
        for found in _FENCE.finditer(text)
    ]


class Shell:
    """Runs the commands of a page in one folder and one environment; stops what still runs when the page is done."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        self._running: list[tuple[str, subprocess.Popen[str]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for _, process in self._running:
            process.send_signal(signal.SIGTERM)
        ended = [(command, process, process.communicate(timeout=30)[0]) for command, process in self._running]
        for command, process, said in ended:
            assert process.returncode == 0 or error, f"{command} ended with {process.returncode}:\n{said}"
            if error:
                error.add_note(f"{command} said:\n{said}")

    def run(self, fence: Fence) -> None:
        for command, output in fence.commands():
            if fence.background:
                self.start(command)
            else:
                done = self.call(command, fence.exit_code)
                assert not output or _read(done.stdout) == _read(output), f"{fence}: {done.stdout}{done.stderr}"

    def call(self, command: str, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            shlex.split(command), cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=50
        )
        assert done.returncode == exit_code, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            shlex.split(command), cwd=self._folder, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._running.append((command, process))
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End a program that knows nothing of an end in good order."""
        self._running = [(command, other) for command, other in self._running if other is not process]
        process.kill()
        process.communicate(timeout=30)


def _read(output: str) -> object:
    """Output as JSON where it is: a page may break its lines as it likes."""
    try:
        return json.loads(output)
    except json.JSONDecodeError:
        return output.strip()
