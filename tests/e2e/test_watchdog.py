"""A worker whose node holds the interpreter's lock in C code when the signal comes: no code of Python sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from flowkit.client import Client
from tests.watchdogs import descriptors, watchdogs

HOLDS = """
import asyncio, faulthandler, operator, os, re
from functools import partial
from pathlib import Path
from flowkit import Node

node = Node("holds")
pattern = re.compile("(a+)+$")

def match(letters):
    # Whoever reads what this writes finds the lock held: one call of C code writes it and goes on with the expression,
    # so that there is no step of Python in between, at which another thread could get the lock.
    calls = partial(faulthandler.dump_traceback, 2, False), partial(pattern.match, "a" * letters + "b")
    any(map(operator.call, calls))

@node.main
async def main():
    if Path("begun").exists():
        return [], {"pid": os.getpid()}, "done"
    Path("begun").touch()
    await asyncio.to_thread(match, 60)
"""
WORKS = """
import asyncio, multiprocessing, os, subprocess, time
from flowkit import Node

node = Node("works")

def held():
    return [os.readlink(f"/proc/self/fd/{name}") for name in range(100) if os.path.exists(f"/proc/self/fd/{name}")]

def tell(pipe):
    pipe.send(held())

@node.main
async def main():
    # These two go on when the worker has ended.
    null = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    left = [subprocess.Popen(["sleep", "600"], **null).pid]
    if (pid := os.fork()) == 0:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        os.dup2(1, 2)
        while True:
            time.sleep(600)
    left.append(pid)
    outputs = {"left": left}
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        process = context.Process(target=tell, args=(theirs,))
        process.start()
        outputs[method] = await asyncio.to_thread(ours.recv)
        process.join()
    done = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True)
    outputs["subprocess"] = done.stdout.split()
    return [], outputs, "done"
"""
# The command with less time for the end after the drain than an operator has.
COMMAND = "from flowkit.cli import app; from flowkit.cli.services import worker; worker.HELD = {held}; app.main()"
HELD = 1.0
SLACK = 6.0  # seconds; under two on a machine with nothing else to do


@pytest.fixture
def nodes(shell):
    (shell.folder / "holds.py").write_text(HOLDS)
    (shell.folder / "works.py").write_text(WORKS)
    shell.environment["FLOWKIT_NODES_DIR"] = str(shell.folder)


async def begin(shell, node, *options, held=HELD, before=""):
    """A worker of this node."""
    worker = await shell.python("-c", before + COMMAND.format(held=held), "worker", "--node", node, *options)
    await worker.says("takes tasks of")
    return worker


@contextlib.asynccontextmanager
async def started(shell, node):
    async with Client(
        shell.environment["FLOWKIT_BROKER_URL"], namespace=shell.environment["FLOWKIT_NAMESPACE"]
    ) as starts:
        yield await starts.start(node)


async def no_watchdog(worker):
    async with asyncio.timeout(10):
        while watchdogs(worker):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("number", "loop"), [(signal.SIGTERM, "uvloop"), (signal.SIGINT, "asyncio")])
async def test_it_is_killed_and_its_task_runs_elsewhere(shell, nodes, number, loop):
    await shell.coordinator()
    without = "" if loop == "uvloop" else "import sys; sys.modules['uvloop'] = None; "
    worker = await begin(shell, "holds", "--drain-timeout", "0.2", before=without)
    async with started(shell, "holds") as run:
        await worker.says("in match")
        asked = time.monotonic()
        os.killpg(worker.process.pid, number)  # as a terminal does at Ctrl-C
        code, _ = await worker.result()
        assert code == -signal.SIGKILL, worker.said
        assert time.monotonic() - asked < 0.2 + HELD + SLACK, worker.said
        assert f"{number.name} is unread after 1.5 s: C code of a node holds the interpreter" in worker.said
        assert worker.said.count("in match") == 2, "the stacks, written without the lock"
        await no_watchdog(worker.process.pid)
        other = await begin(shell, "holds")
        assert await run.outputs(timeout=20) == {"pid": other.process.pid}
        assert await other.terminate() == 0


async def test_the_second_signal_counts_though_neither_is_seen(shell, nodes):
    await shell.coordinator()
    shell.environment["FLOWKIT_LOG_FORMAT"] = "json"
    worker = await begin(shell, "holds", "--drain-timeout", "600", held=2.5)
    async with started(shell, "holds"):
        await worker.says("in match")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("lock_held")
        asked = time.monotonic()
        assert await worker.terminate() == -signal.SIGKILL, worker.said
        assert time.monotonic() - asked < 2.5 + SLACK
        lines = [json.loads(line) for line in worker.said.splitlines() if "flowkit.worker.watchdog" in line]
        assert [(line["level"], line["action"]) for line in lines] == [("WARNING", "lock_held"), ("ERROR", "killed")]
        assert "the process is killed in 600.5 s" in lines[0]["message"]
        await shell.worker("holds")  # which ends the run


async def test_none_is_left_behind_by_a_worker_that_ends(shell, nodes):
    """In good order or by ``kill -9``, though processes that a node has begun live on."""
    await shell.coordinator()
    for ending in (signal.SIGTERM, signal.SIGKILL):
        worker = await begin(shell, "works")
        (watchdog,) = watchdogs(worker.process.pid)
        assert os.getsid(watchdog) == watchdog, "apart from the terminal, and from the child processes of nodes"
        async with started(shell, "works") as run:
            outputs = await run.outputs(timeout=30)
        left = outputs.pop("left")
        # By now its interpreter has read its modules.
        ours = descriptors(watchdog)
        (wakeups,) = [name for name in ours if name.startswith("socket:")]
        assert len(ours) == 3, "stdin, stdout, stderr"
        try:
            assert outputs.keys() == {"fork", "spawn", "subprocess"}
            assert not [how for how, names in outputs.items() if wakeups in names]
            worker.process.send_signal(ending)
            code, _ = await worker.result()
            assert code == (0 if ending == signal.SIGTERM else -ending), worker.said
            if ending == signal.SIGTERM:
                assert watchdogs(worker.process.pid) == []
            await no_watchdog(worker.process.pid)
        finally:
            for pid in left:
                os.kill(pid, signal.SIGKILL)


async def test_it_survives_the_signals_of_a_whole_service(shell, nodes):
    """Systemd sends SIGTERM to each process of a unit; a worker whose watchdog is gone works on, and hears signals."""
    await shell.coordinator()
    worker = await begin(shell, "holds", "--drain-timeout", "0.2")
    (watchdog,) = watchdogs(worker.process.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(watchdog, number)
    async with started(shell, "holds"):
        await worker.says("in match")
        assert await worker.terminate() == -signal.SIGKILL, worker.said
        other = await begin(shell, "holds")
        (watchdog,) = watchdogs(other.process.pid)
        os.kill(watchdog, signal.SIGKILL)
        assert await other.terminate() == 0


async def test_the_children_of_a_parent_have_none(shell, nodes):
    parent = await shell.flowkit("worker", "--node", "works", "--processes", "2")
    await parent.says("all 2 worker processes take tasks")
    pid = parent.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    assert [watchdogs(int(child)) for child in (pid, *children)] == [[], [], []]
    assert await parent.terminate() == 0
