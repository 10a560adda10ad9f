"""What Celery and Dramatiq lose or run again under the faults of ``make chaos``, with their safest settings.

``python -m benchmarks.safest``, in the virtual environments that ``make bench`` makes. Tasks of 20 ms that nothing
follows from, published with confirms before the faults begin; four at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import venvs
from tests.services.rabbitmq import RabbitMQ

HERE = Path(__file__).parent
TASKS = 1_500
ROUNDS = 5
QUIET = 25.0  # seconds without a line of the record, after which nothing more is expected
WORKERS = {
    "celery": ["-m", "celery", "-A", "celery_tasks", "worker", "--concurrency", "4", "--loglevel", "ERROR",
               "--without-mingle", "--without-gossip"],
    "dramatiq": ["-m", "dramatiq", "dramatiq_tasks", "--processes", "1", "--threads", "4"],
}  # fmt: skip
SEND = {
    "celery": "from celery_tasks import work\nfor n in range({}): work.delay(n)",
    "dramatiq": "from dramatiq_tasks import work\nfor n in range({}): work.send(n)",
}


def main() -> None:
    """Play both under both faults, print a table."""
    print("| | fault | times | tasks | lost | executed more than once |", "| --- " * 6 + "|", sep="\n", flush=True)
    for name in WORKERS:
        for what, fault in FAULTS.items():
            lost, again = play(str(venvs.python_of(name)), name, fault)
            print(f"| {name} | {what} | {ROUNDS} | {TASKS:,} | {lost} | {again} |", flush=True)


def worker_killed(rabbit: RabbitMQ, worker: Worker) -> None:
    """End the worker with kill -9."""
    del rabbit
    worker.kill()
    worker.start()


def broker_restarted(rabbit: RabbitMQ, worker: Worker) -> None:
    """Restart the broker."""
    rabbit.restart()
    if worker.ended:  # as a supervisor would
        worker.start()


FAULTS = {"worker killed (kill -9)": worker_killed, "broker restarted": broker_restarted}


class Worker:
    """The worker process with its children, in a process group of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment
        self.start()

    @property
    def ended(self) -> bool:
        """Whether it has left."""
        return self._process.poll() is not None

    def start(self) -> None:
        """Start it, or another one."""
        self._process = subprocess.Popen(
            self._command, cwd=HERE, env=self._environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        """End all of it as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def play(python: str, name: str, fault: Callable[[RabbitMQ, Worker], None]) -> tuple[int, int]:
    """How many tasks never came to their end, and how many executions began once more."""
    rabbit = RabbitMQ()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record")
        record.touch()
        try:
            rabbit.start()
            environment = os.environ | {"BROKER": rabbit.url, "CHAOS_RECORD": str(record)}
            worker = Worker([python, *WORKERS[name]], environment)
            subprocess.run([python, "-c", SEND[name].format(TASKS)], cwd=HERE, env=environment, check=True)
            for _ in range(ROUNDS):
                more(record, 100)
                fault(rabbit, worker)
            while more(record, 1):
                if worker.ended:
                    worker.start()
            worker.kill()
        finally:
            rabbit.close()
        counts = {"begin": Counter[str](), "end": Counter[str]()}
        for line in record.read_text().splitlines():
            word, number = line.split()
            counts[word][number] += 1
    return TASKS - len(counts["end"]), counts["begin"].total() - len(counts["begin"])


def more(record: Path, lines: int) -> bool:
    """Wait until there are so many more lines; False when it has been quiet for too long."""
    before = size = len(_lines(record))
    since = time.monotonic()
    while size < before + lines:
        ended = {line for line in _lines(record) if line.startswith("end ")}
        if time.monotonic() - since > (QUIET if len(ended) < TASKS else 5):
            return False
        time.sleep(0.1)
        now = len(_lines(record))
        if now != size:
            size, since = now, time.monotonic()
    return True


def _lines(record: Path) -> list[str]:
    return record.read_text().splitlines()


if __name__ == "__main__":
    main()
