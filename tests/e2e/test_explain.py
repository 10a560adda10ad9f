"""Every reason why a task is not done, brought about with real services; what is said of it, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest

from flowkit.cli.app import call
from flowkit.store import open_store
from tests.e2e.processes import WORKERS, Shell
from tests.services.rabbitmq import RabbitMQ

NODES = """
import asyncio
from flowkit import Gather, Node, Send, Wait
from tenacity import wait_fixed

slow = Node("slow", concurrency=1)
flaky = Node("flaky", wait=wait_fixed(3_600))
wide = Node("wide")
ask = Node("ask")
few = Node("few", limit=1, key="customer")

@slow.main
async def sleep():
    await asyncio.sleep(3_600)

@flaky.main
async def fail():
    raise OSError("the disk is on fire")

@wide.main
async def gather():
    return [Gather([Send("add", {"a": n, "b": n}) for n in range(3)], then="add", max_concurrency=2)], {}, "wide"

@few.main
async def hang():
    await asyncio.sleep(3_600)

@ask.main
async def wait():
    return [Wait("it's time", then="add", timeout=7_200)], {"a": 1, "b": 2}, "asked"
"""


def flowkit(environment: dict[str, str], *words: str) -> tuple[int, str]:
    """Exit code and stdout of a verb, in this process: starting one for each would be most of what these tests take."""
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        return call(list(words)), said.getvalue()


async def ask(shell: Shell, *words: str) -> str:
    """What a verb that succeeds prints."""
    code, out = await asyncio.to_thread(flowkit, shell.environment, *words)
    assert code == 0, words
    return out


async def why(shell: Shell, run_id: str, kind: str) -> tuple[str, str]:
    """Text and hint of the one task that is there for this reason, once there is one."""
    for _ in range(100):
        code, out = await asyncio.to_thread(flowkit, shell.environment, "runs", "explain", run_id, "--json")
        found = [task for task in (json.loads(out)["tasks"] if code == 0 else ()) if task["kind"] == kind]
        if found:
            assert len(found) == 1
            return found[0]["text"], found[0]["hint"]
        await asyncio.sleep(0.1)
    raise AssertionError(f"{run_id} was never {kind}: {out}")


def matches(pattern: str, text: str) -> None:
    assert re.fullmatch(pattern, text), text


async def test_what_waits_for_a_worker(shell):
    (shell.folder / "nodes.py").write_text(NODES)
    await shell.coordinator()
    await ask(shell, "start", "slow", "--id", "one")
    text, hint = await why(shell, "one", "no-worker")
    matches(r"no worker for node 'slow': it waits in its queue with 1 ready for \d+ s\. No worker has ever .*", text)
    assert hint == "flowkit worker --node slow"

    worker = await shell.worker("./nodes.py", "add")
    text, hint = await why(shell, "one", "running")
    matches(r"running on worker \S+ for \d+ s", text)
    assert hint == "flowkit logs one -f"
    for run_id in ("two", "three"):
        await ask(shell, "start", "slow", "--id", run_id)
    text, hint = await why(shell, "three", "queued")
    matches(r"waiting in its queue with [12] ready and 1 worker for \d+ s", text)  # a worker takes what it runs
    assert hint == "more workers: flowkit worker --node slow"
    await worker.kill()


async def test_what_is_held(shell):
    (shell.folder / "nodes.py").write_text(NODES)
    coordinator = await shell.coordinator()
    worker = await shell.worker("./nodes.py")
    await ask(shell, "start", "flaky", "--id", "retries")
    text, hint = await why(shell, "retries", "retrying")
    matches(r"retry in (59 min \d\d s|1 h 00 min); the last attempt failed: OSError: the disk is on fire", text)
    assert hint == ""

    await ask(shell, "start", "slow", "--id", "later", "--delay", "5m")
    text, hint = await why(shell, "later", "delayed")
    matches(r"delayed, to be sent in (4 min 5\d s|5 min 00 s)", text)
    assert hint == ""

    await ask(shell, "start", "wide", "--id", "window")
    text, hint = await why(shell, "window", "max-concurrency")
    assert text == "held by max_concurrency: it goes on when another branch of its Gather ends"
    assert hint == ""

    for run_id in ("first", "second"):
        await ask(shell, "start", "few", "-F", "customer=7", "--id", run_id)
    text, hint = await why(shell, "second", "limit")
    assert text == "held by the limit 1 of node 'few' for customer=7: 1 out, 1 held"
    assert hint == "flowkit runs list, for what is under way"
    await ask(shell, "runs", "cancel", "first")
    await why(shell, "second", "running")

    await ask(shell, "start", "ask", "--id", "person")
    text, hint = await why(shell, "person", "waiting")
    matches(r'waits for signal "it\'s time", for (1 h 59 min|2 h 00 min) more', text)
    assert hint == """flowkit runs signal person 'it'"'"'s time'"""
    await ask(shell, "runs", "pause", "person")
    await ask(shell, "runs", "signal", "person", "it's time")
    assert await why(shell, "person", "paused") == ("held: the run is paused", "flowkit runs resume person")
    assert await ask(shell, "runs", "explain", "person") == (
        "run person is paused, 1 task outstanding\n→ flowkit runs resume person\n"
        "  0.0.0  add: held: the run is paused\n    → flowkit runs resume person\n"
    )

    await worker.terminate()
    await coordinator.terminate()
    text, hint = await why(shell, "later", "delayed")
    assert hint == "no coordinator is at work: flowkit coordinator"


async def released(store_url: str, run_id: str) -> None:
    """The first task of a run is no longer held."""
    store = await open_store(store_url)
    try:
        async with asyncio.timeout(20):
            while (await store.query(lambda query: query.tasks(run_id)))[0].status == "held":
                await asyncio.sleep(0.1)
    finally:
        await store.close()


@pytest.fixture
async def own_shell(private_rabbitmq: RabbitMQ, namespace: str, tmp_path: Path) -> AsyncIterator[Shell]:
    """As ``shell``, on a broker that may be stopped."""
    shell = Shell(
        tmp_path,
        FLOWKIT_BROKER_URL=private_rabbitmq.url,
        FLOWKIT_NAMESPACE=namespace,
        FLOWKIT_STORE_URL=f"sqlite:///{tmp_path}/flowkit.db",
        FLOWKIT_NODES_DIR=str(WORKERS),
    )
    yield shell
    await shell.close()


async def test_what_cannot_be_sent_while_the_broker_is_away(own_shell, private_rabbitmq):
    """The timer is the store's: it releases the task, whose message then has nowhere to go."""
    await own_shell.coordinator()
    await ask(own_shell, "start", "add", "--id", "r", "--delay", "2s")
    await why(own_shell, "r", "delayed")
    private_rabbitmq.kill()
    await released(f"sqlite:///{own_shell.folder}/flowkit.db", "r")
    _, out, said = await own_shell.call("runs", "explain", "r")
    assert out == "run r is running, 1 task outstanding\n  0  add: not sent yet\n"
    assert "What follows is from the store alone." in said
