"""Each fault once, on real services: all that was accepted ends, and the audit finds nothing.

``consumer_timeout`` is tests/e2e/test_long_tasks.py; the large version of all of them is ``make chaos``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.scenarios import SCENARIOS, Place
from tests.services.postgres import Cluster, cluster

SMALL = [name for name in SCENARIOS if name != "consumer-timeout"]


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Callable[[], Cluster]]:
    """A cluster that may be shot down, started when a scenario wants one."""
    started: list[Cluster] = []
    with ExitStack() as stack:

        def start() -> Cluster:
            if not started:
                started.append(stack.enter_context(cluster()))
            return started[0]

        yield start


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", SMALL)
async def test_nothing_is_lost_and_nothing_applied_twice(name, private_rabbitmq, own_postgres, tmp_path, namespace):
    figures = await SCENARIOS[name](Place(private_rabbitmq, own_postgres, tmp_path, namespace), 1)
    assert figures.wrong == []
    assert (figures.lost, figures.accepted) == (0, figures.ended)
    assert figures.accepted > 10
    assert max(figures.recovery) < 30, "seconds from the end of the fault to the end of a fresh run"
