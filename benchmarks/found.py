"""What a run has found: figures of every case in every round, as JSON, with what they were measured on."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

LATEST = Path(__file__).parent / "results" / "latest.json"


@dataclass
class Row:
    """A case with its rounds; None where it failed."""

    title: str
    guarantees: str
    rounds: list[dict[str, float] | None] = field(default_factory=list)
    failure: str = ""  # the last one

    def all(self, figure: str) -> list[float]:
        """This figure of every round that has it."""
        return [one[figure] for one in self.rounds if one is not None and figure in one]

    def median(self, figure: str) -> float | None:
        """Of all rounds; None when it never ended."""
        found = self.all(figure)
        return statistics.median(found) if found else None


@dataclass
class Found:
    """All of it.

    Args:
        machine: what it was measured on; no names of hosts or folders.
        scenarios: name -> key of a case -> its figures.
    """

    machine: dict[str, Any]
    sizes: dict[str, Any]
    scenarios: dict[str, dict[str, Row]] = field(default_factory=dict)

    def ratio(
        self, scenario: str, figure: str, of: str, to: Iterable[str], best: Callable[..., float] = max
    ) -> float | None:
        """The median over rounds of one case's figure to the best one of others in the same round."""
        rows, others = self.scenarios.get(scenario, {}), [*to]
        ratios = []
        for number in range(max((len(row.rounds) for row in rows.values()), default=0)):
            mine = _at(rows.get(of), number, figure)
            theirs = [value for other in others if (value := _at(rows.get(other), number, figure)) is not None]
            if mine is not None and theirs:
                ratios.append(mine / best(theirs))
        return statistics.median(ratios) if ratios else None

    def write(self, path: Path) -> None:
        """As JSON, rounded so that a difference can be read."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What was written."""
        data = json.loads(path.read_text())
        scenarios = {
            name: {key: Row(**row) for key, row in rows.items()} for name, rows in data.pop("scenarios").items()
        }
        return cls(**data, scenarios=scenarios)


def machine(versions: Mapping[str, str]) -> dict[str, Any]:
    """This machine and its software."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3),
        "load": os.getloadavg()[0],
        "versions": {"Python": platform.python_version(), **versions},
    }


def _at(row: Row | None, number: int, figure: str) -> float | None:
    if row is None or number >= len(row.rounds):
        return None
    return (row.rounds[number] or {}).get(figure)


def _rounded(value: Any) -> Any:
    match value:
        case dict():
            return {key: _rounded(one) for key, one in value.items()}
        case list():
            return [_rounded(one) for one in value]
        case float():
            return float(f"{value:.4g}")
    return value
