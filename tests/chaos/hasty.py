"""``flowkit`` whose intervals are some ten times as short: what takes a minute elsewhere is concluded in seconds.

Arguments: those of ``flowkit``. Workers announce themselves more often; coordinators lease, look for lost and overdue
tasks, and give up on silent workers sooner.
"""

from __future__ import annotations

from typing import Any

import flowkit.coordinator
from flowkit.cli.app import main
from flowkit.coordinator import Pace
from flowkit.worker.worker import Worker

ANNOUNCE = 0.4  # seconds
SILENCE = 2.5  # seconds after which a worker counts as gone
HASTE = {
    "relay_every": 0.5, "relay_after": 2, "sweep_every": 0.5, "sweep_after": 6, "worker_silence": SILENCE,
    "overdue_every": 0.4, "lease_after": 0.5, "lease_silence": 4,
}  # fmt: skip


def hasty(**settings: Any) -> Pace:
    return Pace(**settings | HASTE)


flowkit.coordinator.Pace = hasty  # type: ignore[assignment, misc]
Worker.__init__.__kwdefaults__["heartbeat"] = ANNOUNCE  # type: ignore[index]
main()
