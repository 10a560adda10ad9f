"""Celery in its fastest and in its safest configuration."""

from __future__ import annotations

from benchmarks.peers.peer import Peer

# Of its pools, at chains, eight threads are ahead of one alone (solo; with confirms by far) and of processes (prefork).
WORKER = ["-m", "celery", "-A", "benchmarks.peers.celery.app", "worker", "--pool=threads", "--concurrency=8",
          "--loglevel=ERROR", "--without-mingle", "--without-gossip", "--without-heartbeat"]  # fmt: skip
PREFORK = [*WORKER, "--pool=prefork", "--concurrency=2"]

CELERY = (
    Peer("celery", "best", "8 threads", "early acknowledgement, no confirms, classic queue; no history", WORKER),
    Peer("celery", "safe", "8 threads", "late acknowledgement, confirms, classic queue; no history", WORKER),
    Peer("celery", "prefork", "2 processes", "early acknowledgement, no confirms, classic queue; no history", PREFORK,
         can=frozenset({"chain"})),
)  # fmt: skip
