"""FlowKit beside its peers and beside the raw limit, in one run on one private RabbitMQ.

    python -m benchmarks [--scenarios chain,idle] [--systems flowkit,dramatiq-best] [--rounds 5] [--minutes 25]

or ``make bench ARGS=…``. All cases of a scenario are played in turn, in every round in another order, so that ratios
within a round mean something on a machine that is never idle. A whole run writes ``benchmarks/results/latest.json`` and
the tables and pictures of ``docs/explanation/performance.md``; a part of it only prints.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypeVar

from benchmarks import page
from benchmarks.found import LATEST, Found, Row, machine
from benchmarks.ground import Ground, ground
from benchmarks.scenarios.all import SCENARIOS, SYSTEMS, Scenario, Size
from benchmarks.scenarios.case import Case
from benchmarks.system import System

T = TypeVar("T")
SMALL = Size(
    chains=20, singles=50, width=10, wider=20, idle=3, middling=5, large=1, chatty=20, queued=(5, 20), window=20,
    finished=10,
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Measure; 1 when a case failed."""
    options = _options().parse_args(arguments)
    scenarios = _chosen(options.scenarios, {one.name: one for one in SCENARIOS})
    systems = _chosen(options.systems, {one.name: one for one in SYSTEMS})
    size = SMALL if options.small else Size()
    for system in systems:
        system.python()  # packages that are missing are installed before anything is measured
    found = Found(machine({}), asdict(size))
    with ground() as at:
        measure(at, found, scenarios, systems, size, rounds=options.rounds, minutes=options.minutes)
        found.machine["versions"] |= at.versions()
    if not (options.scenarios or options.systems or options.small):
        found.write(LATEST)
        page.write(Found.read(LATEST))  # what others will see: rounded
    return 1 if any(row.failure for rows in found.scenarios.values() for row in rows.values()) else 0


def measure(
    at: Ground, found: Found, scenarios: Sequence[Scenario], systems: Sequence[System], size: Size, *, rounds: int,
    minutes: float,
) -> None:  # fmt: skip
    """Play all scenarios; those that begin after ``minutes`` have one round each."""
    deadline = time.monotonic() + 60 * minutes
    for scenario in scenarios:
        cases = list(scenario.cases(at, size, systems))
        rows = found.scenarios[scenario.name] = {case.key: Row(case.title, case.guarantees) for case in cases}
        for number in range(min(rounds, scenario.rounds)):
            if number and time.monotonic() > deadline:
                print(f"{scenario.name}: no further round, {minutes:g} minutes are over", flush=True)
                break
            turn = number % max(1, len(cases))
            for case in [*cases[turn:], *cases[:turn]]:
                play(case, rows[case.key], f"{scenario.name} {number + 1}")
        print(f"\n{page.table(found, scenario)}\n", flush=True)


def play(case: Case, row: Row, where: str) -> None:
    """One case in one round; what fails is kept as a failure, and the others go on."""
    figures: dict[str, float] | None = None
    try:
        case.begin()
        figures = dict(case.execute())
    except Exception as error:  # noqa: BLE001 - at the border to thirty foreign programs
        row.failure = str(error).splitlines()[0] or repr(error)
        print(f"{where}: {case.key} failed: {error}", file=sys.stderr, flush=True)
    finally:
        case.end()
    row.rounds.append(figures)
    said = "  ".join(f"{name} {value:,.4g}" for name, value in (figures or {}).items())
    print(f"{where:<12} {case.key:<44} {said}", flush=True)


def _chosen(words: str, offered: dict[str, T]) -> list[T]:
    """Those whose names begin with one of these words; all, when there are none."""
    wanted = words.split(",") if words else [""]
    for word in wanted:
        if not any(name.startswith(word) for name in offered):
            sys.exit(f"nothing is called {word!r}. There are {', '.join(offered)}.")
    return [one for name, one in offered.items() if any(name.startswith(word) for word in wanted)]


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--scenarios", default="", help=", ".join(one.name for one in SCENARIOS))
    parser.add_argument("--systems", default="", help=f"those that begin so: {', '.join(one.name for one in SYSTEMS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=25, help="after which nothing has a second round")
    parser.add_argument("--small", action="store_true", help="very little of everything: only whether it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
