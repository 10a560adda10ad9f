"""Debian packages that the services of the tests need, installed with apt-get where that is possible."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")
NO_SERVICE = "#!/bin/sh\nexit 101\n"  # invoke-rc.d's own protocol: the tests start what they need themselves
LOCK = Path(tempfile.gettempdir()) / f"flowkit-tests-{os.geteuid()}.lock"


def install(package: str, present: Callable[[], bool]) -> bool:
    """Install a package, as root or by a sudo that asks for no password, unless it is there.

    Of several test processes one installs, and the others wait for it.

    Args:
        package: its name.
        present: whether what is needed of it exists.

    Returns:
        Whether it exists now.
    """
    if present():
        return True
    with _lock():
        if not present() and (sudo := _privilege()) is not None:
            print(f"installing {package} for the tests with apt-get …", file=sys.stderr)
            subprocess.run([*sudo, "sh", "-c", _script(package)], stdout=sys.stderr, check=False)
    return present()


def _script(package: str) -> str:
    """Shell commands that install a package and start no service of it."""
    ours = not POLICY.exists()
    begin = f"printf '{NO_SERVICE.encode('unicode_escape').decode()}' > {POLICY}; chmod 755 {POLICY}; " if ours else ""
    end = f"; rm -f {POLICY}" if ours else ""
    apt = f"apt-get update -q && apt-get install -qy --no-install-recommends {package}"
    return f"export DEBIAN_FRONTEND=noninteractive; {begin}{apt}{end}"


def _privilege() -> list[str] | None:
    """What stands before a command to run it as root; None where that or apt-get is not to be had."""
    if shutil.which("apt-get") is None:
        return None
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        refused = subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode
    except OSError:  # no sudo
        return None
    return None if refused else sudo


@contextmanager
def _lock() -> Iterator[None]:
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
