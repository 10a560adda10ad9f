"""What every system writes while it is measured: a line for each executed task, the same for all.

A line is 16 bytes, appended in one write (about a microsecond): when, of what, which step. The clock is the machine's
own (CLOCK_MONOTONIC), so lines of different processes can be compared.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

LINE = struct.Struct("<dII")
SENT = 0  # the step that stands for "about to be sent"
_files: dict[int, int] = {}  # one for each process, whoever forks


class Entry(NamedTuple):
    """One line."""

    at: float  # seconds
    number: int  # of a chain, a task or a fan-out
    step: int


def note(number: int, step: int) -> None:
    """Append a line to the file that ``BENCH_RECORD`` names."""
    file = _files.get(os.getpid())
    if file is None:
        file = _files[os.getpid()] = os.open(os.environ["BENCH_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, LINE.pack(time.monotonic(), number, step))


def lines(path: Path) -> int:
    """How many there are."""
    return path.stat().st_size // LINE.size


def entries(path: Path) -> list[Entry]:
    """All of them, in the order of their times."""
    return sorted(Entry(*one) for one in LINE.iter_unpack(path.read_bytes()))
