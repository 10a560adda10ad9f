"""Sends work to a system, in that system's own Python.

python -m benchmarks.peers.send benchmarks.peers.celery.app '{"kind": "chain", "count": 10, "steps": 5}'

An app has ``connected()``, an asynchronous context manager, and ``send(kind, payloads)``. Single tasks, chains and wide
ones are made of payloads as ``Work`` has them.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.peers.work import Work
from benchmarks.record import SENT, lines, note


async def main(module: str, work: Work) -> None:
    """Send all of it, or one after the other."""
    app = importlib.import_module(module)
    record = Path(os.environ["BENCH_RECORD"])
    async with app.connected():
        if not work.one_by_one:
            await app.send(work.kind, work.payloads())
            return
        for payload in work.payloads():
            wanted = lines(record) + 1 + work.executions // work.count
            note(payload["number"], SENT)
            await app.send(work.kind, [payload])
            while lines(record) < wanted:
                await asyncio.sleep(0.001)  # the times are in the record: this decides only when the next one is sent


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Work(**json.loads(sys.argv[2]))))
