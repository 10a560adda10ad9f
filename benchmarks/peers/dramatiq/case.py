"""Dramatiq in its fastest and in its safest configuration."""

from __future__ import annotations

from benchmarks.peers.peer import Peer

QUEUES = ("", ".DQ", ".XQ")
WORKER = ["-m", "dramatiq", "benchmarks.peers.dramatiq.app", "--processes", "2", "--threads", "8"]

DRAMATIQ = (
    Peer("dramatiq", "best", "2 processes of 8 threads", "late acknowledgement, no confirms, classic queue; no history",
         WORKER, QUEUES),
    Peer("dramatiq", "safe", "2 processes of 8 threads", "late acknowledgement, confirms, classic queue; no history",
         WORKER, QUEUES),
)  # fmt: skip
