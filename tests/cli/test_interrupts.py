"""Ctrl-C of ``flowkit run`` and of a script, while author code blocks in every way in which it can."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

BLOCKS = """
import asyncio, re, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from flowkit import Node

node = Node()

def begun():
    sys.stderr.write("begun\\n")
    sys.stderr.flush()

def sleep():
    begun()
    time.sleep(600)

async def awaits():
    begun()
    await asyncio.sleep(600)

async def to_thread():
    await asyncio.to_thread(sleep)

async def own_executor():
    with ThreadPoolExecutor() as pool:
        await asyncio.get_running_loop().run_in_executor(pool, sleep)

async def process_executor():
    with ProcessPoolExecutor(1) as pool:
        begun()
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 600)

async def subprocess_in_thread():
    await asyncio.to_thread(subprocess.run, ["sh", "-c", "trap '' INT; echo begun >&2; exec sleep 600"])

async def loop_blocked():
    sleep()

async def spins():
    begun()
    while True:
        pass

async def matches():
    begun()
    re.match("(a+)+$", "a" * 60 + "b")

async def swallows():
    begun()
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

async def left_behind():
    threading.Thread(target=sleep).start()

async def exits():
    async def leave():
        sys.exit(3)
    asyncio.create_task(leave())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

@node.main
async def main():
    await globals()[node.get_inputs()["how"]]()
    return [], {"how": node.get_inputs()["how"]}, "done"

node.run()
"""
ID = "123e4567-e89b-42d3-a456-426614174000"
WAITS = "waiting for"
# What is said to be waited for; None: nothing is, since it ends at once.
WAYS = {
    "awaits": None,
    "to_thread": "thread asyncio_0, at ",
    "own_executor": "in own_executor",
    "process_executor": "in process_executor",
    "subprocess_in_thread": "thread asyncio_0, at ",
    "loop_blocked": "blocks.py:14 in sleep",
    "spins": "in spins",
    "swallows": "node blocks",
}


@pytest.fixture(params=["run", "script"])
def begin(request, folder):
    """Begins the node in a process group of its own; returns when it blocks."""
    (folder / "workers" / "blocks.py").write_text(BLOCKS)
    begun = []

    def begin(how, *options):
        if request.param == "run":
            command = ["-m", "flowkit.cli", "run", "blocks", "-F", f"how={how}", *options]
        else:
            (folder / "input.json").write_text(json.dumps({"how": how}))
            command = ["workers/blocks.py", "input.json", ID, "-", "blocks"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen([sys.executable, *command], process_group=0, **pipes))
        return Terminal(begun[-1])

    yield begin
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Terminal:
    """What somebody sees who types Ctrl-C."""

    def __init__(self, process):
        self._process, self.said = process, ""

    def says(self, text):
        for line in self._process.stderr:
            self.said += line
            if text in line:
                return
        raise AssertionError(f"it never said {text!r}:\n{self.said}")

    def interrupt(self):
        os.killpg(self._process.pid, signal.SIGINT)

    def ends(self, within):
        out, err = self._process.communicate(timeout=within)
        self.said += err
        return self._process.returncode, out


@pytest.mark.parametrize("how", WAYS)
def test_the_first_ends_in_order_and_the_second_at_once(begin, how):
    terminal = begin(how)
    terminal.says("begun")
    terminal.interrupt()
    if WAYS[how] is not None:
        terminal.says(WAITS)
        assert WAYS[how] in terminal.said
        assert "Ctrl-C again ends at once" in terminal.said
        terminal.interrupt()
    told = time.monotonic()
    assert terminal.ends(10) == (130, "")
    assert time.monotonic() - told < 3
    assert "Traceback" not in terminal.said
    assert "Exception" not in terminal.said


@pytest.mark.parametrize("begin", ["run"], indirect=True)
def test_code_in_c_that_holds_the_lock_of_the_interpreter_is_ended_too(begin):
    terminal = begin("matches")
    terminal.says("begun")
    terminal.interrupt()
    assert terminal.ends(20) == (1, "")
    assert "in matches" in terminal.said, "the stacks, from a thread of C: none of Python can say anything"


def test_one_is_enough_though_it_waits_for_a_while(begin):
    terminal = begin("to_thread")
    terminal.says("begun")
    terminal.interrupt()
    terminal.says(WAITS)
    assert terminal.ends(10) == (130, "")


@pytest.mark.parametrize("begin", ["run"], indirect=True)
def test_what_goes_on_after_the_run_is_waited_for_and_said(begin, folder):
    terminal = begin("left_behind", "--json")
    terminal.says("the run has ended; waiting for thread Thread-")
    terminal.interrupt()
    assert terminal.ends(10) == (130, '{"how": "left_behind"}\n')
    assert "Traceback" not in terminal.said


def test_an_exit_beside_main_ends_neither_the_run_nor_the_script(begin):
    terminal = begin("exits")
    code, out = terminal.ends(20)
    assert (code, '"how":' in out.replace(" ", "")) == (0, True)
    assert "a task that a node began beside its main raised SystemExit(3), which ends that task alone" in terminal.said
    assert "Traceback" not in terminal.said
