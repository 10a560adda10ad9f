"""Ctrl-C of ``flowkit run`` and of a script whose node holds the interpreter's lock: no code of Python sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from flowkit.worker.interrupts import BOUND, HELD
from tests.watchdogs import descriptors, watchdogs

ID = "123e4567-e89b-42d3-a456-426614174000"
NODE = """
import asyncio, faulthandler, operator, os, re, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from flowkit import Node

node = Node()
pattern = re.compile("(a+)+$")

def match(letters=60):
    # Whoever reads what this writes finds the lock held: one call of C code writes it and goes on with the expression,
    # so that there is no step of Python in between, at which another thread could get the lock.
    calls = partial(faulthandler.dump_traceback, 2, False), partial(pattern.match, "a" * letters + "b")
    any(map(operator.call, calls))

async def to_thread():
    await asyncio.to_thread(match)

async def own_executor():
    with ThreadPoolExecutor() as pool:
        await asyncio.get_running_loop().run_in_executor(pool, match)

async def daemon():
    threading.Thread(target=match, daemon=True).start()
    await asyncio.sleep(600)

async def left_behind():
    threading.Timer(0.5, match).start()

async def fails():
    await left_behind()
    raise ValueError("of the author's")

async def awaits():
    if (pid := os.fork()) == 0:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        os.dup2(1, 2)
        while True:
            signal.pause()
    print("begun", pid, file=sys.stderr, flush=True)
    await asyncio.sleep(600)

async def ends():
    pass

@node.main
async def main():
    await globals()[node.get_inputs()["how"]]()
    return [], {"stdin": sys.stdin.read()}, "done"

node.run()
"""
MARGIN = 4.0  # seconds; under one on a machine with nothing else to do


class Terminal:
    """What somebody sees who runs the node."""

    def __init__(self, command, **streams):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        self.process = subprocess.Popen(command, process_group=0, text=True, **streams)
        self.stderr = ""

    def prints(self, text):
        for line in self.process.stderr:
            self.stderr += line
            if text in line:
                return line
        raise AssertionError(f"it never printed {text!r}:\n{self.stderr}")

    def send(self, number):
        os.killpg(self.process.pid, number)

    def ends(self, within):
        out, err = self.process.communicate(timeout=within)
        self.stderr += err
        return self.process.returncode, out

    def has_no_watchdog(self):
        until = time.monotonic() + 10
        while watchdogs(self.process.pid):
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.fixture(params=["run", "script"])
def begin(request, folder):
    """Begins the node in a process group of its own."""
    (folder / "workers" / "holds.py").write_text(NODE)
    terminals = []

    def begin(how, **streams):
        if request.param == "run":
            command = ["-m", "flowkit.cli", "run", "holds", "--json", "-F", f"how={how}"]
        else:
            (folder / "input.json").write_text(json.dumps({"how": how}))
            command = ["workers/holds.py", "input.json", ID, "-", "holds"]
        terminals.append(Terminal([sys.executable, *command], **streams))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        with contextlib.suppress(ProcessLookupError):
            terminal.send(signal.SIGKILL)
        terminal.process.communicate()


@pytest.mark.parametrize("how", ["to_thread", "own_executor", "daemon"])
def test_the_process_is_killed_a_few_seconds_after_its_bound(begin, how):
    terminal = begin(how)
    terminal.prints("in match")
    began = time.monotonic()
    terminal.send(signal.SIGINT)
    assert terminal.ends(30) == (-signal.SIGKILL, "")
    assert time.monotonic() - began < BOUND + HELD + MARGIN
    assert "SIGINT is unread after 5 s: C code of a node holds the interpreter's lock. Killed\n" in terminal.stderr
    assert terminal.stderr.count("in match") == 2, "the stacks, written without the lock"
    terminal.has_no_watchdog()


def test_the_second_signal_shortens_what_is_left(begin):
    terminal = begin("to_thread")
    terminal.prints("in match")
    terminal.send(signal.SIGINT)
    terminal.prints("the process is killed in 3 s")
    began = time.monotonic()
    terminal.send(signal.SIGINT)
    assert terminal.ends(30) == (-signal.SIGKILL, "")
    assert time.monotonic() - began < HELD + MARGIN
    assert "after 5 s" not in terminal.stderr


def test_sigterm_ends_it_at_once(begin):
    """Nothing handles it, so that the system ends the process."""
    terminal = begin("to_thread")
    terminal.prints("in match")
    terminal.send(signal.SIGTERM)
    assert terminal.ends(10) == (-signal.SIGTERM, "")
    terminal.has_no_watchdog()


@pytest.mark.parametrize("how", ["left_behind", "fails"])
def test_a_thread_that_takes_the_lock_when_the_run_has_ended(begin, how):
    terminal = begin(how)
    terminal.prints("in match")
    terminal.send(signal.SIGINT)
    code, _ = terminal.ends(30)
    assert code in (-signal.SIGKILL, -signal.SIGINT), terminal.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_none_is_left_behind_by_a_process_that_ends(begin, number):
    """Also not when a process that the node has forked lives on, nor does it hold stdout."""
    terminal = begin("awaits")
    forked = int(terminal.prints("begun").split()[-1])
    try:
        (watchdog,) = watchdogs(terminal.process.pid)
        pipe = os.fstat(terminal.process.stdout.fileno()).st_ino
        until = time.monotonic() + 10
        while len(held := descriptors(watchdog)) > 3 and time.monotonic() < until:
            time.sleep(0.02)  # the interpreter may still be reading its own modules
        assert len(held) == 3, "stdin, stdout, stderr"
        assert f"pipe:[{pipe}]" not in held
        assert os.getsid(watchdog) == watchdog, "apart from the terminal, and from the child processes of nodes"
        os.kill(terminal.process.pid, number)
        code = terminal.process.wait(20)
        assert code == (130 if number == signal.SIGINT else -number)
        terminal.has_no_watchdog()
    finally:
        os.kill(forked, signal.SIGKILL)


def test_stdin_is_the_nodes_and_a_pipe_ends_with_the_process(begin):
    read, write = os.pipe()
    os.write(write, b"of the caller")
    os.close(write)
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        terminal = begin("ends", stdin=read, stdout=reader.stdin)
        reader.stdin.close()
        reader.stdin = None
        out, _ = reader.communicate(timeout=30)
        assert '"of the caller"' in out
        assert terminal.process.wait(10) == 0
        assert watchdogs(terminal.process.pid) == []
    finally:
        os.close(read)
        reader.kill()
        reader.wait()
