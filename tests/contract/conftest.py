"""Fixtures of the suites over every store."""

from tests.contract.stores import clock, store, url

__all__ = ["clock", "store", "url"]
