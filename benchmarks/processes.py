"""Programs that are measured: each in a session of its own, so that its children are counted and ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Program:
    """A program that runs until it is ended.

    Args:
        command: what to start.
        folder: its working directory.
        log: takes what it says; no pipe, for nobody would read it, and whoever writes would stand still.
        environment: added to this process's own.
    """

    def __init__(
        self, command: Sequence[str | Path], *, folder: Path, log: Path, environment: Mapping[str, str]
    ) -> None:
        # With bytecode kept, as an installation has it: to compile everything again takes longer than most work.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._log, self._command = log, [str(part) for part in command]
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                self._command, env=kept | dict(environment), cwd=folder, stdout=said, stderr=said,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    def wait_said(self, text: str, timeout: float = 60) -> None:
        """Return when it has said this."""
        deadline = time.monotonic() + timeout
        while text not in self.said:
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self} has not said {text!r} in {timeout:.0f} s: {self.said[-2000:]}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raise when it has ended unasked."""
        if self.ended:
            raise RuntimeError(f"{self} ended with {self._process.returncode}: {self.said[-2000:]}")

    def succeed(self, timeout: float) -> None:
        """Wait until it has ended, and raise unless it did so with 0."""
        if self._process.wait(timeout):
            self.check()

    def cpu(self) -> float:
        """Seconds of processor time that it and its children have used, in user code and in the kernel."""
        return sum(float(stat[11]) + float(stat[12]) for _, stat in self._session()) / TICKS

    def memory(self) -> float:
        """Megabytes that it and its children hold; pages that several share are divided among them (PSS)."""
        return sum(_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid, _ in self._session())

    def status(self, which: str) -> float:
        """Megabytes of its first process: ``VmRSS``, what it holds, or ``VmHWM``, what it held at most."""
        return _field(Path(f"/proc/{self._process.pid}/status"), which)

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def ask_to_end(self) -> None:
        """Let it finish what it has begun."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def end(self, timeout: float = 30) -> None:
        """Ask it to end, and wait until it has."""
        self.ask_to_end()
        try:
            self._process.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and its children as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid, _ in self._session():  # a group of its own, within the session
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self._process.wait()

    def __str__(self) -> str:
        return " ".join(Path(part).name if part.startswith("/") else part for part in self._command)

    def _session(self) -> Iterator[tuple[str, list[str]]]:
        """Process ids of the session with their ``/proc/<pid>/stat``, from the third field on."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == self._process.pid and stat[0] != "Z":
                    yield folder.name, stat


def _field(path: Path, name: str) -> float:
    return int(path.read_text().partition(f"{name}:")[2].split()[0]) / 1024
