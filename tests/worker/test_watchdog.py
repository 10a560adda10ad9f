"""How long a signal may be unread, and what a worker does without a watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from flowkit.worker import interrupts as interrupts_module
from flowkit.worker import watchdog as module
from flowkit.worker import watchdog_process
from flowkit.worker.interrupts import Interrupts
from flowkit.worker.watchdog_process import UnreadSignals, watch

FIRST, SECOND = 30, 10

DEAF = """
import asyncio, signal
from flowkit.worker.watchdog import watchdog

loop = asyncio.new_event_loop()  # which never runs
loop.add_signal_handler(signal.SIGTERM, print)
with watchdog(0.5, 0.5, "text") as watching:
    watching.read_signals(loop, print)
    print("ready", flush=True)
    while True:
        signal.pause()
"""


@pytest.mark.parametrize(
    ("counts", "left"),
    [
        ([0], FIRST),
        ([1], FIRST),
        ([1, 1], FIRST - 1),
        ([1, 1, 2], SECOND),  # the second signal shortens what is left
        ([1, 1, 2, 2, 3, 4], SECOND - 3),  # a third one changes nothing
        ([1] * 26 + [2], FIRST - 26),  # nor does a second one prolong it
        ([2, 2], SECOND - 1),  # both came between two looks
        ([1, 1, 1, 0], FIRST),  # it was read
        ([2, 0, 1, 1], FIRST - 1),
    ],
)
def test_the_time_that_is_left(counts, left):
    unread = UnreadSignals(FIRST, SECOND)
    for count in counts[:-1]:
        unread.observe(count)
        unread.wait(1)
    unread.observe(counts[-1])
    assert unread.left == left


def test_a_process_that_cannot_be_started_is_logged(monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with caplog.at_level(logging.WARNING, "flowkit"), module.watchdog(FIRST, SECOND, "text") as watching:
        assert watching is None
    assert "no watchdog: Resource temporarily unavailable" in caplog.text


def test_a_system_without_fork_has_none(monkeypatch):
    monkeypatch.delattr("os.fork")
    with module.watchdog(FIRST, SECOND, "text") as watching:
        assert watching is None


class Observed(UnreadSignals):
    """Calls a function whenever a number of unread signals is observed."""

    def __init__(self, observe):
        super().__init__(FIRST, SECOND)
        self.counts, self._then = [], observe

    def observe(self, count):
        super().observe(count)
        self.counts.append(count)
        self._then(len(self.counts))


def test_the_signals_of_a_node_file_count_for_nothing_and_cost_nothing(monkeypatch):
    monkeypatch.setattr(watchdog_process, "TICK", 0.2)
    wakeups, written = socket.socketpair()
    with wakeups, written:
        wakeups.setblocking(False)
        written.send(bytes([signal.SIGUSR1]))
        unread = Observed(lambda times: times == 3 and written.close())
        began = time.monotonic()
        watch(wakeups, os.getppid(), unread, 0, "text")
    assert unread.counts == [0, 0, 0]
    assert time.monotonic() - began >= 2 * 0.2, "it waits between two looks, though there is something to read"


def test_a_worker_that_ends_does_not_wait_for_the_next_look(monkeypatch):
    monkeypatch.setattr(watchdog_process, "TICK", 600)
    wakeups, written = socket.socketpair()
    with wakeups, written:
        wakeups.setblocking(False)
        written.send(bytes([signal.SIGTERM]))
        unread = Observed(lambda _: wakeups.recv(1) and written.close())
        watch(wakeups, os.getppid(), unread, 0, "text")
    assert unread.counts == [1]


@pytest.mark.parametrize("reader", ["gone", "stuck"])
def test_a_process_is_killed_though_nobody_reads_its_stderr(reader):
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=write, process_group=0)
    try:
        assert process.stdout.readline() == b"ready\n"
        if reader == "gone":
            os.close(read)
        else:
            os.set_blocking(write, False)
            with contextlib.suppress(BlockingIOError):
                while os.write(write, b"x" * 4096):
                    pass
            os.set_blocking(write, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
        os.close(write)
        if reader == "stuck":
            os.close(read)


def test_ctrl_c_stays_unread_until_the_end_is_bounded(monkeypatch):
    """Whoever removes it needs the lock again afterwards, which a node may have taken by then."""
    unread = []
    with Interrupts(print) as interrupts:
        read = interrupts._watchdog.read
        monkeypatch.setattr(
            interrupts_module, "_end_within", lambda _: unread.extend(select.select([read], [], [], 0)[0])
        )

        async def main():
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(600)

        with pytest.raises(KeyboardInterrupt):
            interrupts.run(main())
    assert unread == [read]
