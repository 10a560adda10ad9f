"""Mixed load with faults for minutes or an hour: nothing may grow, and nothing may slow down.

    python -m tests.chaos.soak [--minutes 10] [--json FILE] [--svg FILE]

or `make soak`. Two coordinators on PostgreSQL and three workers; of each kind the last one is killed now and then, the
others live through connections that are cut and a broker that restarts, and are measured. Exit 1 when something grew,
or when the audit of all runs found something.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.plot import charts
from tests.chaos.stage import Stage, stage
from tests.e2e.processes import Command
from tests.services.postgres import cluster, database
from tests.services.rabbitmq import RabbitMQ, install

EVERY = 10.0  # seconds between samples
FAULT_EVERY = 45.0  # seconds between faults
WARM = 0.3  # share of the time after which nothing should grow any more
LIMITS = {"memory": 1.10, "file descriptors": 1.10, "broker": 1.10, "latency": 1.5}  # late over early, medians
AT_ONCE = 8  # runs under way
PAUSE = 0.05  # seconds that a step takes: the machine is not to be the limit


@dataclass
class Soak:
    """What was seen. Samples are (minutes, value)."""

    samples: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    faults: list[tuple[float, str]] = field(default_factory=list)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    grew: dict[str, float] = field(default_factory=dict)  # late over early

    def add(self, what: str, name: str, minutes: float, value: float) -> None:
        """One sample."""
        self.samples.setdefault(what, {}).setdefault(name, []).append((round(minutes, 3), round(value, 2)))

    def judge(self, minutes: float) -> None:
        """Compare the middle with the end."""
        for what, lines in self.samples.items():
            limit = next((limit for word, limit in LIMITS.items() if what.startswith(word)), None)
            if limit is None:
                continue
            for name, line in lines.items():
                early = [y for x, y in line if WARM * minutes <= x < 0.65 * minutes]
                late = [y for x, y in line if x >= 0.65 * minutes]
                if not early or not late:
                    continue
                ratio = statistics.median(late) / max(statistics.median(early), 1e-9)
                self.grew[f"{what}: {name}"] = round(ratio, 3)
                if ratio > limit:
                    self.wrong.append(f"{what} of {name}: {ratio:.2f} times as much at the end as in the middle")


def memory(process: Command) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def descriptors(process: Command) -> int:
    """Open files and sockets."""
    return sum(1 for _ in Path(f"/proc/{process.process.pid}/fd").iterdir())


async def measure(soak: Soak, here: Stage, rabbit: RabbitMQ, began: float, lasting: dict[str, Command]) -> None:
    """One sample of everything."""
    seconds = await here.load.probe()
    now = (time.monotonic() - began) / 60
    soak.add("latency of a chain of four steps, ms", "chain", now, 1000 * seconds)
    for name, process in lasting.items():
        soak.add("memory, MB", name, now, memory(process))
        soak.add("file descriptors", name, now, descriptors(process))
    said = await asyncio.to_thread(rabbit.ctl, "list_channels", "name")
    soak.add("broker", "channels", now, sum(1 for line in said.splitlines() if "->" in line))
    said = await asyncio.to_thread(rabbit.ctl, "list_queues", "name", "messages", "--no-table-headers")
    lines = [line.split() for line in said.splitlines() if len(line.split()) == 2]
    soak.add("broker", "queues", now, len(lines))
    work = sum(int(count) for name, count in lines if not name.endswith(".logs") and count.isdigit())
    soak.add("messages in queues (without the stream of logs)", "messages", now, work)
    soak.add("runs ended, a second", "runs", now, (len(here.load.ended) - soak.runs) / EVERY)
    soak.runs = len(here.load.ended)


async def strike(soak: Soak, here: Stage, rabbit: RabbitMQ, began: float, turn: asyncio.Lock) -> None:
    """One fault after the other, for ever, and none while something is measured; who is measured lives through all."""

    async def kill(commands: list[Command]) -> None:
        await (victim := commands[-1]).kill()
        await here.replace(victim)

    async def worker() -> None:
        await kill(here.workers)

    async def coordinator() -> None:
        await kill(here.coordinators)

    async def connections() -> None:
        await asyncio.to_thread(rabbit.close_connections)

    async def broker() -> None:
        await asyncio.to_thread(rabbit.restart)

    faults: Sequence[tuple[str, Callable[[], Awaitable[None]]]] = (
        ("kill -9 of a worker", worker), ("all connections closed", connections),
        ("kill -9 of a coordinator", coordinator), ("broker restarted", broker),
    )  # fmt: skip
    for what, fault in itertools.cycle(faults):
        await asyncio.sleep(FAULT_EVERY)
        async with turn:
            soak.faults.append((round((time.monotonic() - began) / 60, 2), what))
            await fault()


async def play(minutes: float, rabbit: RabbitMQ, store: str, folder: Path) -> Soak:
    """The whole of it."""
    soak, began = Soak(), time.monotonic()
    load = {"at_once": AT_ONCE, "most": sys.maxsize, "work": PAUSE}
    async with stage("soak", folder, "soak", rabbit.url, store=store, coordinators=2, workers=3, load=load) as here:
        lasting = {"coordinator": here.coordinators[0], "worker 1": here.workers[0], "worker 2": here.workers[1]}
        turn = asyncio.Lock()
        striking = asyncio.create_task(strike(soak, here, rabbit, began, turn))
        while (now := time.monotonic() - began) < 60 * minutes:
            if striking.done():
                await striking  # it never ends by itself: it says why
            async with turn:
                await measure(soak, here, rabbit, began, lasting)
            await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - began - now)))
        striking.cancel()
        await asyncio.wait([striking])
        figures = await here.conclude()
    soak.runs = figures.accepted
    soak.wrong += figures.wrong
    soak.judge(minutes)
    return soak


def main(arguments: Sequence[str]) -> int:
    """Play, judge, draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path, help="where to write the samples")
    parser.add_argument("--svg", type=Path, help="where to draw them")
    asked = parser.parse_args(arguments)
    if not install():
        print("RabbitMQ's own binaries are needed: apt-get install rabbitmq-server", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        rabbit = RabbitMQ()
        stack.callback(rabbit.close)
        rabbit.start()
        store = stack.enter_context(database(stack.enter_context(cluster()).url))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowkit-soak-")))
        soak = asyncio.run(play(asked.minutes, rabbit, store, folder))
    if asked.json:
        asked.json.write_text(json.dumps(asdict(soak)) + "\n")
    if asked.svg:
        title = f"{asked.minutes:g} minutes, {soak.runs:,} runs, {len(soak.faults)} faults (dashed)"
        asked.svg.write_text(charts(title, soak.samples, soak.faults))
    for what, ratio in soak.grew.items():
        print(f"{what:<60} {ratio:5.2f} x at the end")
    print(f"{soak.runs:,} runs, {len(soak.faults)} faults, {len(soak.wrong)} things wrong")
    for problem in soak.wrong[:20]:
        print(f"  {problem}")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
