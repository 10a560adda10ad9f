"""A virtual environment for each peer, made once from its pinned versions and kept in the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent


def cache() -> Path:
    """Where they are kept: ``$XDG_CACHE_HOME/flowkit-benchmarks``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowkit-benchmarks"


def python_of(peer: str) -> Path:
    """The interpreter that has this peer; installs it when its versions, or this Python, have not been seen yet."""
    pinned = (HERE / peer / "requirements.txt").read_bytes()
    folder = cache() / f"{peer}-{sha256(pinned + sys.version.encode()).hexdigest()[:12]}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        print(f"installing {peer} into a virtual environment of its own …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
        command = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--requirement"]
        subprocess.run([*command, HERE / peer / "requirements.txt"], check=True)
        complete.touch()
    return python


def version(peer: str) -> str:
    """The pinned one, such as ``5.7.0``."""
    for line in (HERE / peer / "requirements.txt").read_text().splitlines():
        name, _, number = line.partition("==")
        if name == peer:
            return number
    raise LookupError(f"benchmarks/peers/{peer}/requirements.txt pins no {peer}")
