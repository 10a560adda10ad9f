"""Signs of life: a small file for each worker or coordinator, written by its event loop, read by ``flowkit health``.

A file needs no port and no broker. When the event loop hangs, the file grows old; when the process is gone, nobody
writes it. Its age is told by the monotonic clock, which all processes of a machine share: setting the time of day makes
no file older or younger. It lies in ``$XDG_RUNTIME_DIR/flowkit``, or in ``.flowkit/run`` where there is no such folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

EVERY = 2  # seconds between two beats
TOO_OLD = 30  # seconds without a beat: the event loop hangs. Well over any hiccup, well under what a task may block


@dataclass(frozen=True, slots=True)
class Sign:
    """What a process last said of itself; ``age`` in seconds."""

    pid: int
    kind: str
    name: str
    ready: bool
    age: float
    blocked: str | None = None  # why its broker accepts no messages

    @property
    def live(self) -> bool:
        """Whether its event loop turns."""
        return self.age < TOO_OLD


class Pulse:
    """Writes the file.

    Args:
        kind: ``worker`` or ``coordinator``.
        name: of the process.
        ready: whether it is connected and consuming.
        blocked: why its broker accepts no messages; None while it does.
    """

    def __init__(
        self, kind: str, name: str, ready: Callable[[], bool], blocked: Callable[[], str | None] = lambda: None
    ) -> None:
        self._kind, self._name, self._ready, self._blocked = kind, name, ready, blocked
        self._path, self._warned = folder() / f"{os.getpid()}.json", False

    async def run(self) -> None:
        """Beat until cancelled, then remove the file."""
        try:
            while True:
                self.beat()
                await asyncio.sleep(EVERY)
        finally:
            self.end()

    def beat(self) -> None:
        """Write the file; it wants to be written every two seconds."""
        words = {
            "kind": self._kind, "name": self._name, "ready": self._ready(), "blocked": self._blocked(),
            "monotonic": time.monotonic(),
        }  # fmt: skip
        fresh = self._path.with_suffix(".new")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(words), "utf-8")
            fresh.replace(self._path)
        except OSError as error:  # a read-only file system: the service works, only 'flowkit health' cannot
            if not self._warned:
                logger.warning("no sign of life in %s: %s", self._path, error.strerror, extra={"action": "no_pulse"})
            self._warned = True

    def end(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def signs() -> list[Sign]:
    """The signs of life of all processes that are there."""
    found = []
    for path in sorted(folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):  # just removed, or not ours
            words = json.loads(path.read_text("utf-8"))
            age = time.monotonic() - float(words["monotonic"])
            pid = int(path.stem)
            # Less than nothing: it was written before the machine was started anew, and another process has its pid.
            if age >= 0 and _exists(pid):
                found.append(Sign(pid, words["kind"], words["name"], bool(words["ready"]), age, words.get("blocked")))
    return found


def forget(pid: int) -> None:
    """Remove the file of a process that is dead and could not do it."""
    with contextlib.suppress(OSError):
        (folder() / f"{pid}.json").unlink(missing_ok=True)


def folder() -> Path:
    """Where the files lie."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "flowkit" if runtime and os.access(runtime, os.W_OK) else Path(".flowkit/run")


def _exists(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill(pid, 0) is Ctrl-C there: the age of the file has to do
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True
