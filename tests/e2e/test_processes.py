"""``flowkit worker --processes N``: a parent and its workers, killed and asked to end in every way."""

from __future__ import annotations

import json
import os
import signal

import pytest

from flowkit.client import Client
from tests.e2e.processes import Command, Shell

# Begun is said on the worker's stderr, which is the signal that the tests wait for.
SLOW = """
import asyncio, logging, os
from flowkit import Node

node = Node("slow")

@node.main
async def main():
    logging.getLogger("flowkit.slow").warning("begun by %d", os.getpid())
    await asyncio.sleep(node.get_inputs()["seconds"])
    return [], {"pid": os.getpid()}, "done"
"""


TAKE = "all 2 worker processes take tasks"


@pytest.fixture
def nodes(shell, tmp_path):
    folder = tmp_path / "nodes"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    shell.environment["FLOWKIT_NODES_DIR"] = str(folder)
    shell.environment.pop("XDG_RUNTIME_DIR", None)  # signs of life of this test alone
    return folder


async def begin(shell: Shell, count: int, *options: str) -> Command:
    command = await shell.flowkit("worker", "--node", "slow", "--processes", str(count), *options)
    await command.says(f"all {count} worker processes take tasks")
    return command


async def alive(shell: Shell) -> dict[str, int]:
    """The pids of the workers by name, and that of the parent."""
    _, out, _ = await shell.call("health", "--ready", "--json")
    return {one["name"]: one["pid"] for one in json.loads(out)["processes"] if one["kind"] == "worker"}


def client(shell: Shell) -> Client:
    return Client(shell.environment["FLOWKIT_BROKER_URL"], namespace=shell.environment["FLOWKIT_NAMESPACE"])


async def test_several_share_the_work_and_end_together(shell, nodes):
    coordinator = await shell.coordinator()
    worker = await begin(shell, 2, "--name", "pictures", "--concurrency", "1")
    assert worker.said.count("2 worker processes for slow, parent") == 1
    at_work = await alive(shell)
    assert at_work.keys() == {"pictures-1", "pictures-2", "parent of 2 processes"}
    async with client(shell) as starts:
        runs = await starts.start_many("slow", [{"seconds": 0.2}] * 6)
        pids = {(await run.outputs(timeout=20))["pid"] for run in runs}
    assert len(pids) == 2
    assert worker.process.pid not in pids, "the parent runs no author's code"
    for name, pid in ((name, pid) for name, pid in at_work.items() if name.startswith("pictures")):
        assert f"[{name}] flowkit.slow: begun by {pid}\n" in worker.said
    assert await worker.terminate() == 0
    assert await coordinator.terminate() == 0
    assert await shell.call("health") == (
        1, "", "flowkit: no worker or coordinator runs here (no sign of life in .flowkit/run)\n",
    )  # fmt: skip


async def test_one_that_is_killed_is_replaced_and_its_task_runs_again(shell, nodes):
    await shell.coordinator()
    worker = await begin(shell, 2, "--name", "w", "--log-format", "json")
    before = await alive(shell)
    async with client(shell) as starts:
        run = await starts.start("slow", {"seconds": 1})
        await worker.says("begun by")
        victim = int(worker.said.partition("begun by ")[2].partition('"')[0])
        os.kill(victim, signal.SIGKILL)
        await worker.says(f"worker process {victim} was killed by SIGKILL; another one begins in 0.5 s")
        assert (await run.outputs(timeout=30))["pid"] != victim
    await worker.says(TAKE, times=2)
    after = await alive(shell)
    assert after.keys() == before.keys()
    assert sum(after[name] != pid for name, pid in before.items()) == 1
    lines = [json.loads(line) for line in worker.said.splitlines()]
    died = next(line for line in lines if line.get("action") == "process_ended")
    assert (died["pid"], died["exit"]) == (victim, -9)
    assert {line.get("worker") for line in lines} == {None, "w-1", "w-2"}
    assert await worker.terminate() == 0


async def test_one_that_somebody_ends_by_hand_is_replaced_at_once(shell, nodes):
    worker = await begin(shell, 2, "--name", "w")
    victim = (await alive(shell))["w-2"]
    os.kill(victim, signal.SIGTERM)
    await worker.says(f"worker process {victim} ended with exit code 0; another one begins now")
    await worker.says(TAKE, times=2)
    assert await worker.terminate() == 0


async def test_workers_whose_parent_was_killed_finish_what_they_have_and_end(shell, nodes):
    await shell.coordinator()
    worker = await begin(shell, 2)
    async with client(shell) as starts:
        run = await starts.start("slow", {"seconds": 1})
        await worker.says("begun by")
        await worker.kill()  # until everybody who could write to its stderr has gone
        assert worker.said.count("the parent is gone: finishing what has started") == 2
        assert (await run.outputs(timeout=1))["pid"]
    assert "parent of" not in str(await alive(shell))


@pytest.mark.parametrize("to_all", [False, True], ids=["to the parent, as a container does", "to all, as Ctrl-C does"])
async def test_the_first_signal_drains_whoever_gets_it(shell, nodes, to_all):
    await shell.coordinator()
    worker = await begin(shell, 2)
    pids = list((await alive(shell)).values())
    async with client(shell) as starts:
        run = await starts.start("slow", {"seconds": 1})
        await worker.says("begun by")
        for pid in pids if to_all else [worker.process.pid]:
            os.kill(pid, signal.SIGINT)
        assert (await worker.result())[0] == 0
        assert (await run.outputs(timeout=5))["pid"]
    assert "stopping" not in worker.said


async def test_the_second_signal_abandons_what_runs(shell, nodes):
    await shell.coordinator()
    worker = await begin(shell, 2)
    async with client(shell) as starts:
        run = await starts.start("slow", {"seconds": 600})
        await worker.says("begun by")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("once more stops them now")
        assert await worker.terminate() == 1
        await run.cancel()
    assert "SIGTERM again: stopping all now" in worker.said
    assert "1 task abandoned: it will run again" in worker.said


async def test_the_worst_exit_code_of_the_workers_is_its_own(shell, nodes):
    await shell.coordinator()
    worker = await begin(shell, 2, "--drain-timeout", "0.1")
    async with client(shell) as starts:
        run = await starts.start("slow", {"seconds": 600})
        await worker.says("begun by")
        assert await worker.terminate() == 1
        assert "ended with exit code 0" in worker.said
        await run.cancel()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--node", "nosuch"], 2, "flowkit: node 'nosuch': no file nosuch.py"),
        (["--node", "slow", "--broker", "{url}nosuch"], 3, "nosuch not found"),
    ],
    ids=["no node", "no virtual host"],
)
async def test_what_is_wrong_for_all_is_said_once_and_ends_as_one_worker_does(shell, nodes, options, code, says):
    options = [option.format(url=shell.environment["FLOWKIT_BROKER_URL"]) for option in options]
    alone, _, said = await shell.call("worker", *options)
    assert (alone, says in said) == (code, True)
    several, _, said = await shell.call("worker", "--processes", "4", *options)
    assert (several, said.count("\nflowkit: ")) == (code, 1)
    assert says in said
    assert f"ended with exit code {code} before it took tasks: no other one is begun" in said


async def test_a_replacement_that_cannot_begin_ends_all_with_its_code(shell, nodes):
    worker = await begin(shell, 2, "--name", "w")
    (nodes / "slow.py").write_text("import nosuch")
    os.kill((await alive(shell))["w-1"], signal.SIGKILL)
    assert (await worker.result())[0] == 2
    assert "ModuleNotFoundError: No module named 'nosuch'" in worker.said
    assert "ended with exit code 2, which trying again would not help. The others finish" in worker.said
    assert "ended with exit code 0" in worker.said
