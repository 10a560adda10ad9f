"""The nodes of the load: every kind of step that a fault could break, each of them written down when it runs.

What runs is noted in the file ``CHAOS_RECORD``: a line at the beginning and one at the end of ``main``, so that the
audit can say how often a task was really executed, whatever the rows of the store say.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from flowkit import Gather, Logger, Node, Send, Wait
from flowkit.worker.current import current

KINDS = ("chain", "gather", "retry", "delay", "wait", "limit")
STORE_KINDS = (  # where the store is at fault: with what is concluded from rows and silence
    "timed", "chain", "lease", "cancel", "timed", "gather", "delay", "timed", "wait", "limit", "lease", "deadline",
    "retry",
)  # fmt: skip
COMMIT_KINDS = ("deadline", "cancel", *STORE_KINDS[:5], "deadline", "cancel", "deadline", *STORE_KINDS[5:], "deadline")
STATUSES = {"cancel": "cancelled", "deadline": "failed"}  # how such runs end; all others succeed
DEADLINE = 0.5  # seconds
WORK = 0.01  # seconds that a step takes where its inputs do not say
LONG = 1.2  # seconds that a task takes which hasty coordinators lease
QUEUE_TIMEOUT = 3.0  # seconds that a task of ``timed`` may wait for a worker
WIDTH = 3

root, step, branch, leaf, shaky = (
    Node("root", concurrency=10),
    Node("step", concurrency=10),
    Node("branch", concurrency=10),
    Node("leaf", concurrency=10),
    Node("shaky", stop=stop_after_attempt(20), wait=wait_fixed(0.2)),
)
inner, join, limited, flood = (
    Node("inner"), Node("join"), Node("limited", limit=2), Node("flood", concurrency=1),
)  # fmt: skip
timed, long = Node("timed", concurrency=10, queue_timeout=QUEUE_TIMEOUT), Node("long", concurrency=10)
logger = Logger(flood)


def expected(kind: str, n: int) -> dict[str, Any]:
    """The outputs of a run that went as it should."""
    match kind:
        case "chain":
            return {"n": n, "left": 0}
        case "gather":
            return {"results": [{"results": [n + 10 * b + s for s in range(WIDTH)]} for b in range(WIDTH)]}
        case "limit" | "timed":
            return {"results": [n + s for s in range(WIDTH)]}
        case "flood":
            return {"lines": n}
        case _:
            return {"n": n}


@asynccontextmanager
async def executed() -> AsyncIterator[dict[str, Any]]:
    """Note the beginning and the end of this execution, and take the time that work takes."""
    running = current.get()
    assert running is not None
    task = running.task
    note(f"begin {task.task_id} {task.tries}")
    await asyncio.sleep(task.inputs.get("work", WORK))
    yield task.inputs
    note(f"end {task.task_id} {task.tries}")


def note(words: str) -> None:
    """Append a line; one write, so that lines of several processes do not mix."""
    record = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(record, f"{words} {os.getpid()}\n".encode())
    finally:
        os.close(record)


@root.main
async def _root():
    async with executed() as inputs:
        n, work = inputs["n"], {"work": inputs["work"]} if "work" in inputs else {}
        match inputs["kind"]:
            case "chain":
                follow = [Send("step", {"n": n, "left": 3, **work})]
            case "gather":
                follow = [Gather([Send("branch", {"n": n + 10 * b, **work}) for b in range(WIDTH)], then="join")]
            case "retry":
                follow = [Send("shaky", {"n": n})]
            case "delay":
                follow = [Send("leaf", {"n": n}, delay=1)]
            case "wait" | "cancel" | "deadline":
                follow = [Wait("go", then="leaf")]
            case "limit" | "timed":
                node = "limited" if inputs["kind"] == "limit" else "timed"
                follow = [Gather([Send(node, {"n": n + s, **work}) for s in range(WIDTH)], then="inner")]
            case "lease":
                follow = [Send("long", {"n": n, "work": LONG})]
            case kind:
                raise ValueError(kind)
        outputs = {"n": n}
    return follow, outputs, ""


@step.main
async def _step():
    async with executed() as inputs:
        left = inputs["left"] - 1
    return ["step"] if left else [], {**inputs, "left": left} if left else {"n": inputs["n"], "left": 0}, ""


@branch.main
async def _branch():
    async with executed() as inputs:
        work = {"work": inputs["work"]} if "work" in inputs else {}
        sends = [Send("leaf", {"n": inputs["n"] + s, **work}) for s in range(WIDTH)]
    return [Gather(sends, then="inner")], {}, ""


@leaf.main
async def _leaf():
    async with executed() as inputs:
        n = inputs["n"]
    return [], {"n": n}, ""


@limited.main
async def _limited():
    async with executed() as inputs:
        n = inputs["n"]
    return [], {"n": n}, ""


@timed.main
async def _timed():
    async with executed() as inputs:
        n = inputs["n"]
    return [], {"n": n}, ""


@long.main
async def _long():
    async with executed() as inputs:
        n = inputs["n"]
    return [], {"n": n}, ""


@inner.main
async def _inner():
    async with executed() as inputs:
        results = [one["n"] for one in inputs["results"]]
    return [], {"results": results}, ""


@join.main
async def _join():
    async with executed() as inputs:
        results = inputs["results"]
    return [], {"results": results}, ""


@shaky.main
async def _shaky():
    async with executed() as inputs:
        running = current.get()
        if running is not None and running.task.tries < 3:
            raise OSError("not yet")
    return [], {"n": inputs["n"]}, ""


@flood.main
async def _flood():
    async with executed() as inputs:
        for number in range(inputs["n"]):
            await logger.info(f"line {number}")  # noqa: G004 - our own Logger
    return [], {"lines": inputs["n"]}, ""
