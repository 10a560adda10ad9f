"""The process beside a worker that kills it when a signal stays unread. ``watchdog.py`` runs this file as a script.

    python -I -S watchdog_process.py WORKER FIRST SECOND DUMP FORMAT KILLED

The worker is any process with author code: also ``flowkit run``, or a node file run as a script. File descriptor 0 is
the socket into which the signal handler of its interpreter writes one byte per signal. The worker reads it, this
process only peeks. Imports are few, because they are most of what this process costs.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

TICK = 0.5  # seconds between two looks at a signal that is unread
WARN = 2.0  # seconds after which an unread signal is logged
PARENT = 5.0  # seconds between two looks whether the worker still exists, in case its end of the socket stays open
DUMP = 0.5  # seconds for the stacks of the worker's threads to be written
STDERR = 2  # file descriptor
ASKS_TO_END = (signal.SIGTERM, signal.SIGINT)


class UnreadSignals:
    """How long signals have been unread, and how long they may be.

    Args:
        first: seconds for which a signal may stay unread.
        second: seconds from the moment at which there are two.
    """

    def __init__(self, first: float, second: float) -> None:
        self._first, self._second = first, second
        self.waited = 0.0
        self._until = first
        self._count = 0

    @property
    def left(self) -> float:
        """Seconds until the worker is killed."""
        return self._until - self.waited

    def observe(self, count: int) -> None:
        """Note how many signals are unread now."""
        if not count or not self._count:
            self.waited, self._until = 0.0, self._first
        if count > 1 >= self._count:
            self._until = min(self._until, self.waited + self._second)
        self._count = count

    def wait(self, seconds: float) -> None:
        """Count time that has passed.

        It is counted and not read from a clock, so that time in which both processes were frozen does not count.
        """
        self.waited += seconds


def watch(
    wakeups: socket.socket, worker: int, unread: UnreadSignals, dump: int, style: str, *, killed: str = "Killed"
) -> None:
    """Return when the worker has ended, or was killed.

    Args:
        wakeups: the worker's signals, one byte each.
        worker: process id; the parent of this process.
        unread: how long signals may stay unread.
        dump: signal at which the worker writes the stacks of its threads; 0 is none.
        style: of the log, ``text`` or ``json``.
        killed: what is logged when the worker is killed.
    """
    readable, closed = select.poll(), select.poll()
    readable.register(wakeups, select.POLLIN)
    closed.register(wakeups, 0)  # that the other end is closed is reported unasked
    warned = False
    while os.getppid() == worker:
        readable.poll(PARENT * 1000)
        try:
            numbers = wakeups.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:  # nothing within that time, or the worker has read it already
            unread.observe(0)
            warned = False
            continue
        if not numbers or closed.poll(0):  # as the worker does when it ends
            return
        names = [signal.Signals(number).name for number in numbers if number in ASKS_TO_END]
        unread.observe(len(names))
        if names:
            why = f"{names[0]} is unread after {unread.waited:g} s: C code of a node holds the interpreter's lock"
            if unread.left <= 0:
                log("ERROR", f"{why}. {killed}", "killed", style)
                kill(worker, dump)
                return
            if unread.waited >= WARN and not warned:
                log("WARNING", f"{why}. If it keeps it, the process is killed in {unread.left:g} s", "lock_held", style)
                warned = True
        closed.poll(TICK * 1000)
        unread.wait(TICK)


def kill(worker: int, dump: int) -> None:
    """Kill the worker, after it has written where its threads are."""
    for number, seconds in ((dump, DUMP), (signal.SIGKILL, 0)):
        if number and os.getppid() == worker:  # otherwise its process id may be another process's by now
            os.kill(worker, number)
            time.sleep(seconds)


def log(level: str, message: str, action: str, style: str) -> None:
    """Write a line like those of the worker's own log; not when whoever reads stderr has gone, or is stuck."""
    now, name = time.time(), "flowkit.worker.watchdog"
    if style == "json":
        import json
        from datetime import UTC, datetime

        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = json.dumps({"ts": moment, "level": level, "logger": name, "message": message, "action": action})
    else:
        moment = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03}"
        line = f"{moment} {level:<7} {name}: {message}"
    try:
        if select.select([], [STDERR], [], 1)[1]:
            os.write(STDERR, f"{line}\n".encode())
    except OSError:
        return


def main(arguments: list[str]) -> None:
    """Watch the worker whose child this is; the arguments are those of the command line."""
    worker, first, second, dump, style, killed = arguments
    for number in (*ASKS_TO_END, signal.SIGHUP):  # sent to all processes of a service; it ends with the worker
        signal.signal(number, signal.SIG_IGN)
    unread = UnreadSignals(float(first), float(second))
    watch(socket.socket(fileno=0), int(worker), unread, int(dump), style, killed=killed)


if __name__ == "__main__":
    main(sys.argv[1:])
