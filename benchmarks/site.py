"""One system that is set up once: under a fresh name, with a record of what it executes."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict

from benchmarks import record
from benchmarks.ground import Ground
from benchmarks.peers.work import Work
from benchmarks.processes import Program
from benchmarks.system import ROOT, System

PATIENCE = 300.0  # seconds for one case
LOOK = 0.002  # seconds between two looks at the record


class Site:
    """A system at a place of its own.

    Args:
        ground: where the services are.
        system: what to set up.
        kind: of the work that it will have.
    """

    def __init__(self, ground: Ground, system: System, kind: str) -> None:
        self._ground, self.system, self.kind = ground, system, kind
        self.name, self.folder = ground.fresh(system.name)
        self.record = self.folder / "record"
        self.record.touch()
        self.programs: dict[str, Program] = {}
        self._environment = {
            "PYTHONPATH": str(ROOT),
            "BENCH_BROKER": ground.broker,
            "BENCH_NAME": self.name,
            "BENCH_RECORD": str(self.record),
            **system.environment(ground, self.name, self.folder, kind),
        }

    def send(self, work: Work) -> None:
        """Send work, and return when all of it is sent."""
        command = [self.system.python(), "-m", "benchmarks.peers.send", self.system.app, json.dumps(asdict(work))]
        sender = Program(command, folder=self.folder, log=self.folder / "send.log", environment=self._environment)
        try:
            sender.succeed(PATIENCE)
        except subprocess.TimeoutExpired:
            self.check()
            raise
        finally:
            sender.kill()

    def start(self, *names: str) -> None:
        """Start these services, or all of them, in order."""
        for service in self.system.services(self.kind):
            if not names or service.name in names:
                log = self.folder / f"{service.name}.log"
                program = Program(service.command, folder=self.folder, log=log, environment=self._environment)
                self.programs[service.name] = program
                if service.ready:
                    program.wait_said(service.ready)

    def wait(self, executions: int) -> None:
        """Return when so many tasks have been executed since the record began."""
        deadline = time.monotonic() + PATIENCE
        while record.lines(self.record) < executions:
            self.check()
            if time.monotonic() > deadline:
                done = record.lines(self.record)
                raise RuntimeError(f"{self.system.name}: {done} of {executions} tasks in {PATIENCE:.0f} s")
            time.sleep(LOOK)

    def check(self) -> None:
        """Raise when a service has ended."""
        for program in self.programs.values():
            program.check()

    def cpu(self) -> float:
        """Seconds of processor time that all services have used."""
        return sum(program.cpu() for program in self.programs.values())

    def memory(self) -> dict[str, float]:
        """Megabytes that each service holds."""
        return {name: program.memory() for name, program in self.programs.items()}

    def close(self) -> None:
        """End everything and leave nothing."""
        for program in self.programs.values():
            program.kill()
        self._ground.forget(self.system.queues(self.name), self.folder)
