"""The way round on a real RabbitMQ: memory of an idle worker, latency of a five-step chain. It judges nothing.

python -m benchmarks.way_round, or `make bench`. It starts a private RabbitMQ, a coordinator (SQLite) and a worker.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flowkit import Client
from tests.services.rabbitmq import RabbitMQ

FLOWKIT = Path(sys.executable).with_name("flowkit")
STEP = """
from flowkit import Node, Send
node = Node()
async def main():
    n = node.get_inputs()["n"]
    return ([Send("step", {"n": n - 1})] if n > 1 else []), {"n": n}, ""
node.register_main(main)
"""
STEPS, RUNS, TOGETHER = 5, 40, 200


async def chains(url: str) -> tuple[list[float], float]:
    """Milliseconds of each chain on an idle system, and steps per second of many at once."""
    async with Client(url) as client:
        times: list[float] = []
        for _ in range(RUNS + 5):
            began = time.perf_counter()
            run = await client.start("step", {"n": STEPS})
            await run.outputs(timeout=60)
            times.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        runs = await client.start_many("step", [{"n": STEPS}] * TOGETHER)
        await asyncio.gather(*(run.outputs(timeout=120) for run in runs))
        return times[5:], STEPS * TOGETHER / (time.perf_counter() - began)


def memory(process: subprocess.Popen[bytes]) -> float:
    """Resident megabytes of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def said(process: subprocess.Popen[bytes], text: str) -> None:
    """Wait until a process has said this on stderr."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line.decode():
            return
    raise RuntimeError(f"it ended without saying {text!r}")


def main() -> None:
    """Start everything, measure, end everything."""
    broker = RabbitMQ()
    broker.start()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "step.py").write_text(STEP)
        environment = os.environ | {"FLOWKIT_BROKER_URL": broker.url, "FLOWKIT_NODES_DIR": folder}
        verbs = [["coordinator"], ["worker", "--node", "step"]]
        started = [
            subprocess.Popen([FLOWKIT, *verb], env=environment, cwd=folder, stderr=subprocess.PIPE) for verb in verbs
        ]
        try:
            said(started[0], "is ready")
            said(started[1], "takes tasks of")
            idle = memory(started[1])
            times, rate = asyncio.run(chains(broker.url))
            print(f"idle worker                            {idle:>8.0f} MB")
            print(f"five-step chain, idle, median of {RUNS}    {statistics.median(times):>8.1f} ms")
            print(f"  fastest, nine tenths                 {min(times):>8.1f} {sorted(times)[RUNS * 9 // 10]:.1f} ms")
            print(f"{TOGETHER} chains at once                     {rate:>8.0f} steps/s")
            print(f"memory after: coordinator, worker      {memory(started[0]):>8.0f} {memory(started[1]):.0f} MB")
        finally:
            for process in started:
                process.terminate()
                process.wait()
            broker.close()


if __name__ == "__main__":
    main()
