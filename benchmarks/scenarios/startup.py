"""Start-up: from the shell to the first executed task, with the memory held then; and verbs of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import record
from benchmarks.scenarios.at_site import AtSite
from benchmarks.scenarios.case import Figures
from benchmarks.system import ROOT

FLOWKIT = Path(sys.executable).with_name("flowkit")


@dataclass
class StartUp(AtSite):
    """A worker whose first task waits for it."""

    def begin(self) -> None:
        """Send one task."""
        self.set_up().send(self.work)

    def execute(self) -> Figures:
        """Start the worker."""
        began = time.monotonic()
        self.site.start()
        self.site.wait(1)
        return {
            "seconds": record.entries(self.site.record)[0].at - began,
            "mb": sum(self.site.memory().values()),
        }


@dataclass
class Verb:
    """A verb of the command line from shell to prompt, in the folder of this project."""

    arguments: Sequence[str]
    guarantees: str = ""

    @property
    def key(self) -> str:
        """The command."""
        return " ".join(["flowkit", *self.arguments])

    @property
    def title(self) -> str:
        """The command as a page shows it."""
        return f"`{self.key}`"

    def begin(self) -> None:
        """There is nothing to prepare."""

    def execute(self) -> Figures:
        """Run it."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        began = time.perf_counter()
        subprocess.run([FLOWKIT, *self.arguments], cwd=ROOT, env=kept, capture_output=True, check=True)
        return {"seconds": time.perf_counter() - began}

    def end(self) -> None:
        """There is nothing to leave behind."""
