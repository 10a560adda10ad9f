"""``python -m tests.chaos [scenario …] [--rounds N] [--json FILE]``: each fault, large; prints a table and ends."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.chaos.scenarios import SCENARIOS, Place
from tests.chaos.stage import Figures
from tests.services.postgres import Cluster, cluster
from tests.services.rabbitmq import RabbitMQ, install, speaks_amqp

ROUNDS = 20
SLOW = {  # rounds of faults that take long by themselves
    "network-black-hole": 5, "network-one-way": 5, "network-slow": 5, "worker-stopped": 5, "coordinator-stopped": 5,
    "log-flood": 3, "rolling-restart": 5, "restart-on-sqlite": 5, "memory-alarm": 5, "store-locked": 5,
}  # fmt: skip
HEAD = "| fault | times | runs accepted | ended | lost | executions | twice | recovered in s (median, most) | s |"


def main() -> int:
    """Play, print; exit 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"one of {', '.join(SCENARIOS)}; all when left out")
    parser.add_argument("--rounds", type=int, help=f"how often each fault strikes ({ROUNDS}, slow ones less often)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if unknown := set(args.scenario) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(unknown)}: there are {', '.join(SCENARIOS)}")
    if not install():
        print("RabbitMQ's own binaries are needed: apt-get install rabbitmq-server", file=sys.stderr)
        return 1
    found = []
    with ExitStack() as stack:
        rabbit = RabbitMQ()
        stack.callback(rabbit.close)
        started: list[Cluster] = []

        def postgres() -> Cluster:
            if not started:
                started.append(stack.enter_context(cluster()))
            return started[0]

        print(HEAD, "| --- " * 9 + "|", sep="\n", flush=True)
        for name in args.scenario or SCENARIOS:
            if not speaks_amqp(rabbit.port):
                rabbit.kill()
                rabbit.start()
            with tempfile.TemporaryDirectory(prefix="flowkit-chaos-") as folder:
                place = Place(rabbit, postgres, Path(folder), f"c{int(time.time() * 1000):x}")
                figures = _play(name, place, args.rounds or SLOW.get(name, ROUNDS))
            found.append(figures)
            print(row(figures), flush=True)
            for problem in figures.wrong:
                print(f"    {problem}", file=sys.stderr, flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(figures) for figures in found], indent=2) + "\n")
    return 1 if any(figures.wrong for figures in found) else 0


def _play(name: str, place: Place, rounds: int) -> Figures:
    try:
        return asyncio.run(SCENARIOS[name](place, rounds))  # type: ignore[arg-type]
    except Exception:
        return Figures(name, wrong=[traceback.format_exc()])


def row(figures: Figures) -> str:
    """One line of the table."""
    times = sorted(figures.recovery)
    recovery = f"{times[len(times) // 2]:.1f}, {times[-1]:.1f}" if times else ""
    words = (
        figures.scenario, figures.faults, f"{figures.accepted:,}", f"{figures.ended:,}", figures.lost,
        f"{figures.executions:,}", figures.again, recovery, f"{figures.seconds:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, words))} |"


if __name__ == "__main__":
    sys.exit(main())
