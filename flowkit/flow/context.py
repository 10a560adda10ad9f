"""What ``advance`` needs beside state and event."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowkit.flow.limits import Limits


@dataclass(frozen=True, slots=True)
class Context:
    """Time, secret and limits of one transaction."""

    now: float  # Unix seconds
    secret: bytes  # of the store: ids of tasks follow from it
    limits: Limits = field(default_factory=Limits)
