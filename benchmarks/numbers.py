"""What a user waits for: start-up, a small run, the code census, memory. It prints and judges nothing.

python benchmarks/numbers.py, or `make bench`. Each line is the best of three, for a machine is rarely idle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

FLOWKIT = Path(sys.executable).with_name("flowkit")
WORK = {
    "flowkit --help": ["--help"],
    "flowkit run add": ["run", "add", "-F", "a=1", "-F", "b=2"],
    "flowkit run discover (census of the standard library)": ["run", "discover", "--quiet"],
}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds from shell to prompt, and the most memory that the process held, in MB."""
    began = time.perf_counter()
    process = subprocess.Popen([FLOWKIT, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"flowkit {' '.join(arguments)} ended with {process.returncode}")
    return took, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)


if __name__ == "__main__":
    print(f"{'':<55} {'seconds':>8} {'MB':>6}")
    for name, arguments in WORK.items():
        seconds, memory = min(measure(arguments) for _ in range(3))
        print(f"{name:<55} {seconds:>8.2f} {memory:>6.0f}")
