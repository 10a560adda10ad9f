"""Fills a store with finished runs in the shape that real ones have.

python -m benchmarks.finished_runs sqlite:////tmp/many.db 100000
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from uuid import UUID

from flowkit.store import open_store
from flowkit.store.address import database_at
from flowkit.store.attempt import attempt
from flowkit.store.database import Database, Row
from flowkit.wire import codec
from flowkit.wire import messages as wire

NODES = ("order", "charge", "ship")
BATCH = 5_000  # runs in one transaction
DAY = 86_400.0
DAYS = 20  # over which they are spread: none is old enough to be pruned
PAD = "x" * 150

RUN = (
    "id", "node", "status", "tags", "started_at", "tasks", "root", "outputs_from", "ended_at", "message", "error",
)  # fmt: skip
SCOPE = ("run_id", "path", "parent", "status", "outstanding", "branches", "return_exceptions")
TASK = (
    "run_id", "id", "path", "scope", "node", "status", "attempt", "tries", "inputs", "inputs_from", "outputs",
    "leaf_of", "handler", "deaths", "message", "worker", "created_at", "sent_at", "first_started_at", "started_at",
    "finished_at",
)  # fmt: skip
LOG = ("ts", "run_id", "node", "worker", "seq", "line")


async def fill(url: str, runs: int) -> None:
    """Make the store at ``url`` and put ``runs`` finished runs into it.

    Each has three tasks, one after the other, some 200 bytes of outputs each, and three log lines; one in twenty has
    failed.
    """
    await (await open_store(url)).close()
    database = database_at(url)
    for first in range(0, runs, BATCH):
        numbers = range(first, min(first + BATCH, runs))
        attempt(database, lambda database, numbers=numbers: _insert(database, numbers, runs))
    database.close()


def _insert(database: Database, numbers: range, total: int) -> None:
    dice = random.Random(numbers.start)
    now = time.time()
    runs: list[Row] = []
    scopes: list[Row] = []
    tasks: list[Row] = []
    logs: list[Row] = []
    for number in numbers:
        run_id = f"finished-{number:07d}"
        ids = [database.id_in(UUID(int=dice.getrandbits(128), version=4)) for _ in NODES]
        began = now - DAYS * DAY * (total - number) / total
        status = "failed" if number % 20 == 0 else "succeeded"
        error = codec.dumps({"type": "Declined", "message": "no money"}) if status == "failed" else None
        tags = codec.dumps({"tenant": f"t{number % 100}"})
        run = (run_id, "order", status, tags, began, len(NODES), ids[0], ids[-1], began + 3, b"done", error)
        runs.append(run)
        scopes.append((run_id, "", None, "closed", 0, 0, False))
        for place in range(len(NODES)):
            tasks.append(_task(run_id, number, place, ids=ids, at=began + place, status=status))
            logs.append(_log(run_id, number, place, began + place))
    for table, columns, rows in (
        ("runs", RUN, runs), ("scopes", SCOPE, scopes), ("tasks", TASK, tasks), ("logs", LOG, logs),
    ):  # fmt: skip
        database.insert(table, columns, rows)


def _task(run_id: str, number: int, place: int, *, ids: list[UUID], at: float, status: str) -> Row:
    payload = codec.dumps({"order": number, "text": PAD})
    first, last = place == 0, place == len(NODES) - 1
    return (
        run_id, ids[place], ".".join("0" * (place + 1)), "", NODES[place], status if last else "succeeded", 1, 1,
        payload if first else None, None if first else ids[place - 1], payload, "" if last else None, False, 0,
        b"ok", b"host-1-abcd", at, at, at, at, at + 0.5,
    )  # fmt: skip


def _log(run_id: str, number: int, place: int, at: float) -> Row:
    seq, node = len(NODES) * number + place, NODES[place]
    line = wire.Log(ts=at, level="INFO", message=f"{node} of {number}", run_id=run_id, node=node, worker="w", seq=seq)
    return (at, run_id, node, b"w", seq, line.encode())


if __name__ == "__main__":
    asyncio.run(fill(sys.argv[1], int(sys.argv[2])))
