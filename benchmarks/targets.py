"""What FlowKit wants to reach, beside what it has reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.found import Found

OURS, ON_POSTGRES = "flowkit-sqlite", "flowkit-postgres"
CAREFUL = "celery-safe"


@dataclass(frozen=True)
class Target:
    """One of them.

    Args:
        what: the scenario.
        wanted: in words.
        reached: what was measured; None when it was not.
        least: what it has to be at least, or None.
        most: what it may be at most, or None.
        unit: behind the figure.
    """

    what: str
    wanted: str
    reached: float | None
    least: float | None = None
    most: float | None = None
    unit: str = " ×"

    @property
    def kept(self) -> bool:
        """Whether it was reached."""
        value = self.reached
        return value is not None and (self.least or value) <= value <= (self.most or value)

    @property
    def said(self) -> str:
        """The figure."""
        if self.reached is None:
            return "not measured"
        return f"{self.reached:,.0f}{self.unit}" if self.reached >= 100 else f"{self.reached:.2f}{self.unit}"


def targets(found: Found) -> Iterator[Target]:
    """All of them, as ratios within rounds."""
    peers = _peers(found, "chain")
    for least, store, of in ((2.5, "SQLite", OURS), (2, "PostgreSQL", ON_POSTGRES)):
        yield Target(f"chain on {store}, beside the best peer in any configuration", f"≥ {least} ×",
                     found.ratio("chain", "per_second", of, peers), least=least)  # fmt: skip
    yield Target("chain on SQLite, beside Celery with late acknowledgement and confirms", "≥ 10 ×",
                 found.ratio("chain", "per_second", OURS, [CAREFUL]), least=10)  # fmt: skip
    yield Target("chain on SQLite, beside the raw limit", "≥ 0.5 ×",
                 found.ratio("chain", "per_second", OURS, ["raw"]), least=0.5)  # fmt: skip
    for client, least in (("aio-pika", 2), ("pika", 1.5)):
        if (other := f"{OURS}-on-{client}") in found.scenarios.get("chain", {}):
            yield Target(f"chain on SQLite, beside FlowKit on {client}", f"≥ {least} ×",
                         found.ratio("chain", "per_second", OURS, [other]), least=least)  # fmt: skip
    chain = found.scenarios.get("chain", {}).get(OURS)
    yield Target("processor time of a step, worker, coordinator and SQLite", "≤ 200 µs",
                 chain.median("cpu_us") if chain else None, most=200, unit=" µs")  # fmt: skip
    wide = found.scenarios.get("wide", {}).get(OURS)
    yield Target("1,000 side by side and a durable join", "≤ 350 ms", wide.median("p50_ms") if wide else None, most=350,
                 unit=" ms")  # fmt: skip
    ratio = found.ratio("wide", "p50_ms", OURS, _peers(found, "wide"), best=min)
    yield Target("the same, beside the best peer", "≥ 7 × faster", ratio and 1 / ratio, least=7)
    wider = found.scenarios.get("wider", {}).get(OURS)
    times = [row.median("p50_ms") for row in (wider, wide) if row]
    ratio = times[0] / times[1] if len(times) == 2 and all(times) else None  # type: ignore[operator]
    yield Target("10,000 side by side, beside 1,000", "≤ 12 × the time", ratio, most=12)
    for name, figure, what in (
        ("queued", "step_us", "a step over 1,000 and over 100,000 queued"),
        ("finished", "per_second", "a step over none and over 100,000 finished runs"),
    ):
        keys = list(found.scenarios.get(name, {}))
        before, after = keys if len(keys) == 2 else ("", "")
        ratio = found.ratio(name, figure, after, [before])
        grown = ratio and (ratio if figure == "step_us" else 1 / ratio)
        yield Target(what, "≤ 1.2 × the time", grown, most=1.2)


def _peers(found: Found, scenario: str) -> list[str]:
    return [key for key in found.scenarios.get(scenario, {}) if not key.startswith(("flowkit", "raw"))]
