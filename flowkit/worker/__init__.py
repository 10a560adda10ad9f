"""The worker: consume, execute, report, acknowledge, drain. One task and one Definition make one result."""

from flowkit.worker.definition import Definition
from flowkit.worker.naming import worker_name
from flowkit.worker.worker import Worker

__all__ = ["Definition", "Worker", "worker_name"]
