"""A test that hangs fails, and the others go on.

pytest-timeout raises pytest's own failure, once. Hypothesis takes that for a failing example and runs it again to make
it smaller: that one hangs as well, and nobody is left to end it. So does a fixture that cannot be taken down, since the
timer ends with the first failure. Here the exception is one that nobody catches, the alarm rings again, and taking down
has a time of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from pytest_timeout import Settings, is_debugging

AGAIN = 10.0  # seconds until what hangs still, or in a `finally`, is ended too
SECONDS = pytest.StashKey[float]()


class Hangs(BaseException):
    """It took longer than its timeout."""


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool:
    item.stash[SECONDS] = settings.timeout
    _set(item, "the test")
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    if SECONDS in item.stash:
        _set(item, "taking down what it needed")
    return (yield)


def _set(item: pytest.Item, what: str) -> None:
    seconds = item.stash[SECONDS]

    def ring(signum: int, frame: FrameType | None) -> None:
        if not is_debugging():
            raise Hangs(f"{item.nodeid}: {what} took longer than {seconds:g} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
