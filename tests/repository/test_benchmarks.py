"""The benchmark of orchestration runs, with little of everything: what it finds is for a machine that is idle."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks import worker_cost
from benchmarks.orchestration import CASES, NODES, Ground, Report, Size

LITTLE = Size(few=2, many=30, rounds=1, chains=2, steps=2, wide=20, timers=20, delay=0.5, waiting=(5, 10), asks=1)


@pytest.mark.parametrize("case", CASES)
async def test_a_case_of_the_benchmark_runs(
    case: str, rabbitmq_url: str, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nodes.py").write_text(NODES)
    report = Report()
    with ExitStack() as stack:
        await CASES[case](Ground(rabbitmq_url, tmp_path, LITTLE, report, stack, postgres_url))
    printed = capsys.readouterr().out
    assert report.said
    assert all(what in printed for what in report.said)
    assert not [what for what in report.missed if "1,000,000" in what], "the refusal names the limit"


@pytest.mark.parametrize("stage", worker_cost.STAGES)
async def test_what_a_task_costs_a_worker_is_measured(stage):
    micros, bundle = await worker_cost.cost(worker_cost.STAGES[stage](), 200, 1)
    assert micros > 0
    assert 1 <= bundle <= 20
