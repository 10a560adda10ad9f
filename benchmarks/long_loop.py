"""What a loop of very many steps costs: CPU per step, rows, size of the store, and the command line over it.

    python -m benchmarks.long_loop 1000000
    python -m benchmarks.long_loop 100000 --store postgresql://localhost/flowkit

Each step is one result in one transaction of the coordinator, without AMQP, five seconds of the store's clock after the
one before. On PostgreSQL, where the clock is the database's own, steps follow each other at once; max_depth is raised.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from flowkit.coordinator.commit import commit
from flowkit.flow.events import Event, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.store import Store, open_store
from flowkit.wire import messages as wire
from flowkit.wire.items import Send, wrap

SHOWN = (1_000, 10_000, 50_000, 100_000, 500_000, 1_000_000)
VERBS = (("explain",), ("tree",), ("show",), ("show", "--json"))
SECRET = b"secret"


class Clock:
    """Unix seconds as the loop says."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """What time it is."""
        return self.now


async def loop(store: Store, clock: Clock, steps: int, limits: Limits) -> None:
    """One run of ``steps`` steps."""

    async def feed(*events: Event) -> list[UUID]:
        committed = await store.transact(lambda tx: commit(tx, events, secret=SECRET, limits=limits))
        return [task.task_id for task in committed.tasks]

    (task,) = await feed(Started("r", wire.Start(node="poll", run_id="r", inputs={"step": 0})))
    began, last = time.process_time(), 0
    for step in range(1, steps + 1):
        clock.now += 5
        nodes = () if step == steps else (wrap(Send("poll")),)
        result = wire.Result(task_id=task, run_id="r", nodes=nodes, outputs={"step": step, "text": "x" * 100})
        following = await feed(Reported(result))
        if step in SHOWN or step == steps:
            took = time.process_time() - began
            row = await store.query(lambda queries: queries.run("r"))
            assert row is not None
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(
                f"{step:>9,} steps: {took / (step - last) * 1e6:.0f} µs of CPU a step since the line before, "
                f"{row.tasks:,} tasks kept, {row.trimmed:,} removed, {memory} MB",
                flush=True,
            )
            began, last = time.process_time(), step
        if following:
            (task,) = following


def cpu_of_children() -> float:
    """Seconds of CPU that processes used that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def measure(url: str, steps: int) -> None:
    """The loop, then the command line over it."""
    clock = Clock()
    postgres = not url.startswith("sqlite")
    limits = Limits(max_depth=steps + 10) if postgres else Limits()
    store = await open_store(url, clock=clock)
    await loop(store, clock, steps, limits)
    await store.close()
    for verb, *more in VERBS:
        began = cpu_of_children()
        command = [sys.executable, "-m", "flowkit.cli", "runs", verb, "r", "--store", url, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
        widest = max(map(len, done.stdout.splitlines()))
        print(f"runs {' '.join((verb, *more))}: {cpu_of_children() - began:.2f} s of CPU, "
              f"{len(done.stdout):,} characters, {widest} columns")  # fmt: skip


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=int)
    parser.add_argument("--store", help="a fresh database; without it a SQLite file that is removed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "loop.db")
        asyncio.run(measure(given.store or f"sqlite:///{path}", given.steps))
        if path.exists():
            print(f"size of the store: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
