"""FastStream in its fastest and in its safest configuration."""

from __future__ import annotations

from benchmarks.peers.peer import Peer

QUEUES = tuple(f".step{number}" for number in range(1, 6))
CAN = frozenset({"chain", "nothing"})  # no joins
WORKER = ["-m", "faststream", "run", "benchmarks.peers.faststream.app:app", "--workers", "1"]

FASTSTREAM = (
    Peer("faststream", "best", "1 process, uvloop", "early acknowledgement, no confirms, classic queue; no history",
         WORKER, QUEUES, can=CAN),
    Peer("faststream", "safe", "1 process, uvloop", "late acknowledgement, confirms, quorum queue; no history",
         WORKER, QUEUES, can=CAN),
    Peer("faststream", "two", "2 processes, uvloop", "early acknowledgement, no confirms, classic queue; no history",
         [*WORKER, "--workers", "2"], QUEUES, can=frozenset({"chain"})),
)  # fmt: skip
