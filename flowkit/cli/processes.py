"""``flowkit worker --processes N``: a parent that forks N workers, replaces those that die, and ends when they have.

    fork one ─► it is ready ─► fork the others ─► wait for signals, deaths, words of children ─► end with them

The first one goes ahead, so that what is wrong for all of them is said once. The parent has no thread, no connection
and no author's code, so it may fork at any time: docs/decisions/0017-forked-workers.md.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass

from flowkit.cli.lifeline import DRAIN, FORCE, READY, Lifeline
from flowkit.cli.pulse import EVERY, Pulse, forget

logger = logging.getLogger(__name__)

# What a worker says of its configuration, its broker or its rights (cli/app.py): another one would say the same.
FINAL = frozenset({2, 3, 4, 6})
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(frozen=True)
class Patience:
    """How the parent takes deaths.

    Args:
        calm: seconds; a worker that was ready and lived for longer is replaced at once.
        rest: seconds before a worker that died sooner is replaced; twice as long each time in a row.
        longest: seconds that the rest grows to.
        attempts: so many deaths in a row, the last of them before it was ready, and the parent gives up.
        forced: seconds that a child has to end when it shall stop now, before it is killed.
    """

    calm: float = 10
    rest: float = 0.5
    longest: float = 30
    attempts: int = 5
    forced: float = 10

    def before(self, deaths: int) -> float:
        """Seconds to wait after so many early deaths in a row."""
        return min(self.rest * 2 ** (deaths - 1), self.longest) if deaths else 0


@dataclass
class Child:
    """The processes of one number, one after the other; ``pid`` is 0 while there is none."""

    number: int
    pid: int = 0
    link: socket.socket | None = None
    began: float = 0
    ready: bool = False
    deaths: int = 0  # early ones in a row
    due: float | None = None  # when the next one begins, in the parent's time


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
        self._kill_at: float | None = None
        self._codes: list[int] = []  # of children that ended as they were told
        self._reason: int | None = None  # the code because of which the parent gave up
        self._pulse = Pulse("worker", f"parent of {count} processes", self._all_ready)
        self._next_beat = 0.0
        self._wake, self._woken = socket.socketpair()

    def run(self) -> Lifeline | int:
        """Returns in each child, with its lifeline; in the parent when all have ended, with the exit code."""
        self._hear()
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

    def _hear(self) -> None:
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in HEARD:
            signal.signal(number, _nothing)  # a handler has to be there for the wake-up to come

    def _begin_those_due(self) -> Lifeline | None:
        for child in self._children:
            if child.due is not None and child.due <= time.monotonic() and not self._ending:
                lifeline = self._begin(child)
                if lifeline is not None:
                    return lifeline
        return None

    def _begin(self, child: Child) -> Lifeline | None:
        """Fork; the lifeline is for the child, the parent gets None."""
        child.due, child.ready, child.began = None, False, time.monotonic()
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that comes to the child before it has left the parent's handlers behind waits until it has.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            pid = os.fork()
        except OSError as error:  # no memory, no process left
            logger.warning("cannot fork: %s", error.strerror, extra={"action": "fork_failed"})
            pid = -1
        if pid == 0:
            self._leave_behind(ours)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return Lifeline(child.number, theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        child.link = ours
        if pid < 0:
            self._ended(child, 1)
        else:
            ours.setblocking(False)
            child.pid = pid
        return None

    def _leave_behind(self, ours: socket.socket) -> None:
        """In a child: close what is the parent's. Held by a sibling, an end would stay open when the parent dies."""
        signal.set_wakeup_fd(-1)
        for number in HEARD:
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C reaches the parent too, which says what follows. Until the worker hears for itself, it is not for it.
        signal.signal(signal.SIGINT, _nothing)
        for end in (ours, self._wake, self._woken, *(child.link for child in self._children)):
            if end is not None:
                end.close()

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
        assert child.link is not None, "it is listened to"
        said = b""
        with contextlib.suppress(OSError):
            said = child.link.recv(16)
        if not said:  # it is dead or dying: SIGCHLD says so
            child.link.close()
            child.link = None
        elif READY in said and not child.ready:
            child.ready, self._next_beat = True, 0
            if not self._proven:
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
        for child in self._running():
            self._tell(child, DRAIN)
            if not child.ready:  # it may not listen yet: it loads nodes, say, and has nothing to finish
                os.kill(child.pid, signal.SIGTERM)

    def _force(self) -> None:
        self._ending = True
        self._kill_at = self._kill_at or time.monotonic() + self._patience.forced
        for child in self._running():
            self._tell(child, FORCE)

    def _tell(self, child: Child, order: bytes) -> None:
        if child.link is not None:
            with contextlib.suppress(OSError):  # it dies
                child.link.send(order)

    def _kill_the_late(self) -> None:
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return
        self._kill_at = None
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
                    if child.link is not None:
                        self._listen(child)  # its last word counts
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        """Bury a child, and decide what follows."""
        pid, child.pid, self._next_beat = child.pid, 0, 0
        if child.link is not None:
            child.link.close()
            child.link = None
        if pid:
            forget(pid)
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            what = f"worker process {pid} {how}"
        else:
            what = f"worker process number {child.number} could not be begun"
        fields = {"action": "process_ended", "pid": pid, "exit": code}
        if self._ending:
            logger.info("%s", what, extra=fields)
            if child.ready or code != -signal.SIGTERM:  # else it ended as it was told, and had nothing to abandon
                self._codes.append(_as_exit_code(code))
            return
        calm = child.ready and (code == 0 or time.monotonic() - child.began > self._patience.calm)
        child.deaths = 0 if calm else child.deaths + 1
        if not self._proven:
            self._give_up(code, f"{what} before it took tasks: no other one is begun", fields)
        elif code in FINAL:
            self._give_up(code, f"{what}, which trying again would not help", fields)
        elif not child.ready and child.deaths >= self._patience.attempts:
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


def apart(count: int, work: str) -> Lifeline | int:
    """Fork into a parent and ``count`` workers, like ``os.fork`` but for any number.

    Args:
        count: of workers.
        work: what they do, for the log.

    Returns:
        in each worker its lifeline; in the parent, when all have ended, the exit code.
    """
    _import_what_workers_need()
    gc.collect()
    gc.freeze()  # a collector that looks through what all share would make each process copy it
    return Parent(count, work).run()


def _import_what_workers_need() -> None:
    """Once in the parent instead of once in each child: a quarter of the start-up, half of the memory."""
    import flowkit.broker.rabbit
    import flowkit.cli.service
    import flowkit.loading
    import flowkit.worker.worker

    flowkit.cli.service.loop_factory()


def _as_exit_code(code: int) -> int:
    """As a shell tells it: 137 for what was killed by signal 9."""
    return code if code >= 0 else 128 - code


def _nothing(number: int, frame: object) -> None:
    """Let a signal be heard through the wake-up alone."""
