"""``flowkit worker --processes N``: a parent that forks N workers, replaces those that die, and ends when they have.

    fork one ─► it is ready ─► fork the others ─► wait for signals, deaths, words of children ─► end with them

The first one goes ahead, so that what is wrong for all of them is said once. The parent has no thread, no connection
and no author's code, so it may fork at any time: docs/decisions/0017-forked-workers.md.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import select
import signal
import socket
import time
from dataclasses import dataclass

from flowkit.cli.services.child_process import Child, hear_by
from flowkit.cli.services.control_pipe import DRAIN, FORCE, Lifeline
from flowkit.cli.services.heartbeat_file import EVERY, Pulse, forget

logger = logging.getLogger(__name__)

# What a worker says of its configuration, its broker or its rights (cli/app.py): another one would say the same. But a
# broker that others have reached may come back, so one that has not found it yet is replaced like any other.
FINAL = frozenset({2, 3, 4, 6})
UNREACHABLE = 3


@dataclass(frozen=True)
class Patience:
    """How the parent takes deaths.

    Args:
        calm: seconds; a worker that was ready and lived for longer is replaced at once.
        rest: seconds before a worker that died sooner is replaced; twice as long each time in a row.
        longest: seconds that the rest grows to.
        attempts: so many deaths in a row, the last of them before it was ready, and the parent gives up.
        drain: seconds that a child has to end when it shall finish what has started, before it is killed.
        forced: seconds that it has when it shall stop now.
    """

    calm: float = 10
    rest: float = 0.5
    longest: float = 30
    attempts: int = 5
    drain: float = math.inf
    forced: float = 10

    def before(self, deaths: int) -> float:
        """Seconds to wait after so many early deaths in a row."""
        return min(self.rest * 2 ** (deaths - 1), self.longest) if deaths else 0


class Parent:
    """Of some children.

    Args:
        count: of children.
        work: what they do, for the log.
        patience: with those that die.
    """

    def __init__(self, count: int, work: str, patience: Patience = Patience()) -> None:
        self._children = [Child(number) for number in range(1, count + 1)]
        self._work, self._patience = work, patience
        self._signalled = self._proven = self._ending = False
        self._kill_at = math.inf
        self._codes: list[int] = []  # of children that ended as they were told
        self._reason: int | None = None  # the code because of which the parent gave up
        self._pulse = Pulse("worker", f"parent of {count} processes", self._all_ready)
        self._next_beat = 0.0
        self._wake, self._woken = socket.socketpair()

    def run(self) -> Lifeline | int:
        """Returns in each child, with its lifeline; in the parent when all have ended, with the exit code."""
        for end in (self._wake, self._woken):
            end.setblocking(False)
        hear_by(self._woken)
        logger.info(
            "%d worker processes for %s, parent %d: the first goes ahead", len(self._children), self._work, os.getpid(),
            extra={"action": "processes", "processes": len(self._children)},
        )  # fmt: skip
        self._children[0].due = time.monotonic()
        lifeline = self._begin_those_due()
        while lifeline is None and not (self._ending and not self._running()):
            self._wait()
            self._reap()
            self._kill_the_late()
            lifeline = self._begin_those_due()
        if lifeline is not None:
            return lifeline
        self._pulse.end()
        return max(self._codes, default=0) if self._reason is None else self._reason

    def _begin_those_due(self) -> Lifeline | None:
        for child in self._children:
            if child.due is not None and child.due <= time.monotonic():
                try:
                    lifeline = child.fork((self._wake, self._woken, *(other.link for other in self._children)))
                except OSError as error:
                    logger.warning("cannot fork: %s", error.strerror, extra={"action": "fork_failed"})
                    self._ended(child, 1)
                else:
                    if lifeline is not None:
                        return lifeline
        return None

    def _wait(self) -> None:
        """Until a signal, a word of a child, or the time for something; then act on signals and words."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._pulse.beat()
            self._next_beat = now + EVERY
        times = (self._next_beat, self._kill_at, *(child.due for child in self._children))
        until = min(moment for moment in times if moment is not None)
        links = [child.link for child in self._children if child.link is not None]
        heard, _, _ = select.select([self._wake, *links], [], [], max(0, until - now))
        for child in self._children:
            if child.link in heard:
                self._listen(child)
        if self._wake in heard:
            for number in self._wake.recv(256):
                self._signal(signal.Signals(number))

    def _listen(self, child: Child) -> None:
        if not child.listen():
            return
        self._next_beat = 0
        if not self._proven and not self._ending:
            self._proven = True
            for other in self._children[1:]:
                other.due = time.monotonic()
        if self._all_ready() and not self._ending:
            logger.info("all %d worker processes take tasks", len(self._children), extra={"action": "all_ready"})

    def _signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            return
        if self._signalled:
            logger.warning("%s again: stopping all now", number.name, extra={"action": "force"})
            self._force()
        else:
            self._signalled = True
            logger.info(
                "%s: the worker processes finish what has started; once more stops them now", number.name,
                extra={"action": "drain"},
            )  # fmt: skip
            self._drain()

    def _drain(self) -> None:
        self._ending = True
        self._kill_within(self._patience.drain)
        for child in self._children:
            child.due = None
        for child in self._running():
            child.tell(DRAIN)
            if not child.ready:  # it may not listen yet: it loads nodes, say, and has nothing to finish
                os.kill(child.pid, signal.SIGTERM)

    def _force(self) -> None:
        self._kill_within(self._patience.forced)
        for child in self._running():
            child.tell(FORCE)

    def _kill_within(self, seconds: float) -> None:
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)

    def _kill_the_late(self) -> None:
        if time.monotonic() < self._kill_at:
            return
        self._kill_at = math.inf
        for child in self._running():
            logger.warning("worker process %d does not end: killed", child.pid, extra={"action": "killed"})
            os.kill(child.pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self._running():  # none of them: an orphan that came to us as process 1 of a container
                if child.pid == pid:
                    self._listen(child)  # its last word counts
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        """Bury a child, and decide what follows."""
        pid, self._next_beat = child.bury(), 0
        if pid:
            forget(pid)
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            what = f"worker process {pid} {how}"
        else:
            what = f"worker process number {child.number} could not be begun"
        fields = {"action": "process_ended", "pid": pid, "exit": code}
        if self._ending:
            logger.info("%s", what, extra=fields)
            if child.ready:  # else it had nothing that it could abandon, however it ended
                self._codes.append(_as_exit_code(code))
            return
        calm = child.ready and (code == 0 or time.monotonic() - child.began > self._patience.calm)
        child.deaths = 0 if calm else child.deaths + 1
        away = code == UNREACHABLE and not child.ready
        if not self._proven:
            self._give_up(code, f"{what} before it took tasks: no other one is begun", fields)
        elif code in FINAL and not away:
            self._give_up(code, f"{what}, which trying again would not help", fields)
        elif not child.ready and not away and child.deaths >= self._patience.attempts:
            self._give_up(code, f"{what}, and so did those before it: {child.deaths} in a row died early", fields)
        else:
            rest = self._patience.before(child.deaths)
            child.due = time.monotonic() + rest
            when = f"in {rest:g} s" if rest else "now"
            logger.warning("%s; another one begins %s", what, when, extra=fields)

    def _give_up(self, code: int, why: str, fields: dict[str, object]) -> None:
        others = " The others finish what has started." if self._running() else ""
        logger.error("%s.%s", why, others, extra=fields)
        self._reason = _as_exit_code(code) or 1
        self._drain()

    def _running(self) -> list[Child]:
        return [child for child in self._children if child.pid]

    def _all_ready(self) -> bool:
        return all(child.pid and child.ready for child in self._children)


def apart(count: int, work: str, drain: float) -> Lifeline | int:
    """Fork into a parent and ``count`` workers, like ``os.fork`` but for any number.

    Args:
        count: of workers.
        work: what they do, for the log.
        drain: seconds that each has to end once it was told to.

    Returns:
        in each worker its lifeline; in the parent, when all have ended, the exit code.
    """
    _import_what_workers_need()
    gc.collect()
    gc.freeze()  # a collector that looks through what all share would make each process copy it
    return Parent(count, work, Patience(drain=drain)).run()


def _import_what_workers_need() -> None:
    """Once in the parent instead of once in each child: a quarter of the start-up, half of the memory."""
    import flowkit.broker.rabbit
    import flowkit.cli.services.lifecycle
    import flowkit.loading
    import flowkit.worker.worker

    flowkit.cli.services.lifecycle.loop_factory()


def _as_exit_code(code: int) -> int:
    """As a shell tells it: 137 for what was killed by signal 9."""
    return code if code >= 0 else 128 - code
