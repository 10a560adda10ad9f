"""The coordinator: receive, load, advance, commit, publish, acknowledge."""

from flowkit.coordinator.coordinator import Coordinator, Pace

__all__ = ["Coordinator", "Pace"]
