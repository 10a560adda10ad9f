"""How many worker processes ``auto`` means."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, cgroup v2: "200000 100000" or "max 100000", microseconds


def cores() -> int:
    """How many processor cores there are for this process: those it is bound to, within its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a quota
        quota, period = CPU_QUOTA.read_text("ascii").split()
        bound = min(bound, int(quota) // int(period))
    return max(1, bound)
