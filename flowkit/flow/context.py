"""What ``advance`` needs beside state and event."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from flowkit.flow.limits import Limits
from flowkit.flow.slots import NodeLimit


@dataclass(frozen=True, slots=True)
class Context:
    """Time, secret, guards and the limits of nodes, as they are in one transaction."""

    now: float  # Unix seconds
    secret: bytes  # of the store: ids of tasks follow from it
    limits: Limits = field(default_factory=Limits)
    node_limits: Mapping[str, NodeLimit] = field(default_factory=dict)  # of nodes that announced some
    queue_timeouts: Mapping[str, float] = field(default_factory=dict)  # seconds, of nodes that announced one
    steady_for: float = math.inf  # seconds for which the clock that `now` is of is known not to have been set
