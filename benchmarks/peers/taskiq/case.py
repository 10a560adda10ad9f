"""Taskiq with its pipelines in its fastest and in its safest configuration."""

from __future__ import annotations

from benchmarks.peers.peer import Peer

QUEUES = ("", ".dead")
WORKER = ["-m", "taskiq", "worker", "benchmarks.peers.taskiq.app:broker", "--workers", "1", "--no-parse",
          "--log-level", "ERROR", "--max-async-tasks", "200", "--max-prefetch", "200"]  # fmt: skip

TASKIQ = (
    Peer("taskiq", "best", "1 process, uvloop, orjson", "early acknowledgement, confirms, classic queue; no history",
         [*WORKER, "--ack-type", "when_received"], QUEUES),
    Peer("taskiq", "safe", "1 process, uvloop, orjson", "late acknowledgement, confirms, quorum queue; no history",
         [*WORKER, "--ack-type", "when_saved"], QUEUES),
    Peer("taskiq", "two", "2 processes, uvloop, orjson", "early acknowledgement, confirms, classic queue; no history",
         [*WORKER, "--ack-type", "when_received", "--workers", "2"], QUEUES, can=frozenset({"chain"})),
)  # fmt: skip
