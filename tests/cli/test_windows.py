"""What can be told of Windows from elsewhere: ``tests/windows.py`` takes away what Windows does not have."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

PLAYED = Path(__file__).parent.parent / "windows.py"


def windows(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line there."""
    command = [sys.executable, "-P", str(PLAYED), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


def test_every_module_can_be_imported():
    done = windows()
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 200


def test_a_run_in_one_process(folder):
    (folder / "workers" / "add.py").write_text(
        (folder / "workers" / "add.py").read_text().replace("[], {", "print(1) or [], {")
    )
    done = windows("run", "add", "-F", "a=1", "-F", "b=2", "--store", "sqlite:///kept.db")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sum": 3}), done.stderr
    with (folder / "kept.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = windows("run", "add", "-F", "a=1", "-F", "b=2", "--store", "sqlite:///kept.db")
    assert done.returncode == 6
    assert "another coordinator holds its lock" in done.stderr


def test_a_service_hears_signals():
    done = windows("--signals")
    assert done.returncode == 7, done.stderr
    assert "SIGTERM: finishing what has started" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("worker", "--node", "add", "--processes", "2"), 2, "--processes: this system has no fork"),
        (("health",), 1, "no worker or coordinator runs here"),
    ],
)
def test_what_is_not_there_is_one_line(arguments, code, says):
    done = windows(*arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
