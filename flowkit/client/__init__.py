"""The programmer's ``flowkit start``: begin runs, wait for them, signal and cancel them."""

from flowkit.client.client import Client
from flowkit.client.run import Run
from flowkit.client.sync import SyncClient, SyncRun

__all__ = ["Client", "Run", "SyncClient", "SyncRun"]
