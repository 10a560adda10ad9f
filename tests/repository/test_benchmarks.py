"""Benchmarks, with little of everything: what they find is for a machine that is idle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import page, worker_cost
from benchmarks.__main__ import SMALL
from benchmarks.__main__ import measure as measure_all
from benchmarks.found import LATEST, Found, machine
from benchmarks.ground import Ground
from benchmarks.orchestration import CASES, NODES, Report, Size
from benchmarks.orchestration import Ground as OrchestrationGround
from benchmarks.scenarios.all import SCENARIOS, SYSTEMS
from benchmarks.targets import targets

LITTLE = Size(few=2, many=30, rounds=1, chains=2, steps=2, wide=20, timers=20, delay=0.5, waiting=(5, 10), asks=1)


@pytest.mark.parametrize("case", CASES)
async def test_a_case_of_the_benchmark_of_orchestration_runs(
    case: str, rabbitmq_url: str, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nodes.py").write_text(NODES)
    report = Report()
    with ExitStack() as stack:
        await CASES[case](OrchestrationGround(rabbitmq_url, tmp_path, LITTLE, report, stack, postgres_url))
    printed = capsys.readouterr().out
    assert report.said
    assert all(what in printed for what in report.said)
    assert not [what for what in report.missed if "1,000,000" in what], "the refusal names the limit"


@pytest.mark.parametrize("stage", worker_cost.STAGES)
async def test_what_a_task_costs_a_worker_is_measured(stage: str) -> None:
    micros, bundle = await worker_cost.cost(worker_cost.STAGES[stage](), 200, 1)
    assert micros > 0
    assert 1 <= bundle <= 20


@pytest.fixture
def ground(rabbitmq_url: str, tmp_path: Path) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(rabbitmq_url, tmp_path, stack)


@pytest.mark.timeout(180)  # a busy machine
@pytest.mark.parametrize(
    ("scenario", "systems"),
    [
        ("chain", ["flowkit-sqlite", "flowkit-sqlite-on-pika", "flowkit-sqlite-on-aio-pika", "raw", "dramatiq-best"]),
        ("wide", ["flowkit-sqlite"]),
        ("idle", ["dramatiq-safe"]),
        ("queued", ["flowkit-sqlite"]),
        ("startup", ["flowkit-sqlite"]),
    ],
)
def test_a_scenario_finds_figures_of_every_system(scenario: str, systems: Sequence[str], ground: Ground) -> None:
    chosen = [one for one in SYSTEMS if one.name in systems]
    measured = [one for one in SCENARIOS if one.name == scenario]
    found = Found(machine({}), asdict(SMALL))
    measure_all(ground, found, measured, chosen, SMALL, rounds=1, minutes=1)
    rows = found.scenarios[scenario]
    assert {key.partition(": ")[0] for key in rows if not key.startswith("flowkit ")} == set(systems)
    assert not [row.failure for row in rows.values() if row.failure]
    figure, _ = measured[0].shows[0]
    assert all(value > 0 for row in rows.values() for value in row.all(figure))
    assert all(row.all(figure) for row in rows.values())


def test_the_page_shows_what_the_last_run_has_found() -> None:
    found, text = Found.read(LATEST), page.PAGE.read_text()
    assert page.rendered(found, text) == text, "python -m benchmarks.page writes it again"
    for name, picture in page.pictures(found).items():
        assert page.PAGE.with_name(name).read_text() == picture


def test_every_target_is_told_from_figures() -> None:
    assert all(one.reached is not None for one in targets(Found.read(LATEST)))
