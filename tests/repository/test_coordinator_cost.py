"""The benchmark of a coordinator's step runs, and what it counts holds: no statement for each event."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coordinator_cost import GROUPS, cost, gathers, shares, statements


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/flowkit.db"


async def test_the_benchmark_runs(url: str) -> None:
    assert "µs CPU a step" in await cost(url, together=5, seconds=0.1, bundle=2)
    assert [wide for wide, spent in await gathers(url, (20,)) if spent > 0] == [20]
    assert {group for group, _ in await shares(url, together=5, seconds=0.2)} <= {*GROUPS.values(), "else"}


async def test_a_batch_takes_so_many_statements_however_large_it_is(url: str) -> None:
    counted = await statements(url, together=200, seconds=0.1)
    batches = counted.pop("BEGIN")
    assert batches < 200, "so many chains together make batches"
    assert counted.total() / batches < 12
