"""What Linux tells of the watchdogs of processes, for the tests that look for them from outside."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flowkit.worker.watchdog import SCRIPT


def watchdogs(process: int) -> list[int]:
    """Process ids of the watchdogs of a process, whether it is there or not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if str(SCRIPT) in words and words[words.index(str(SCRIPT)) + 1] == str(process):
                found.append(int(entry.name))
    return found


def descriptors(process: int) -> list[str]:
    """What the file descriptors of a process lead to."""
    found = []
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(descriptor.readlink()))
    return found
