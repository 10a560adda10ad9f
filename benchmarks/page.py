"""The tables and pictures of ``docs/explanation/performance.md``, from what a run has found.

``python -m benchmarks.page`` writes them again from ``benchmarks/results/latest.json``. What stands between
``<!-- found: NAME -->`` and ``<!-- end -->`` is written here; all other words of the page are people's.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import plot
from benchmarks.found import LATEST, Found, Row
from benchmarks.scenarios.all import SCENARIOS, Scenario
from benchmarks.targets import targets

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
MARKED = re.compile(r"(<!-- found: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
OURS = "flowkit-sqlite"
VERSION = r" \d+(\.\d+)+"
PLOTTED = ("chain", "singles", "wide", "idle")


def write(found: Found, at: Path = PAGE) -> None:
    """Write what is between marks, and the pictures beside the page."""
    at.write_text(rendered(found, at.read_text()))
    for name, picture in pictures(found).items():
        at.with_name(name).write_text(picture)


def rendered(found: Found, text: str) -> str:
    """The page with these figures."""
    tables = {scenario.name: scenario for scenario in SCENARIOS}

    def between(match: re.Match[str]) -> str:
        name = match[2]
        if name == "machine":
            inside = _machine(found)
        elif name == "targets":
            inside = _targets(found)
        else:
            shown = f"\n\n![{tables[name].title}](performance-{name}.svg)" if name in PLOTTED else ""
            inside = table(found, tables[name]) + shown + explained(found, name)
        return f"{match[1]}\n{inside}\n\n{match[3]}"

    return MARKED.sub(between, text)


def pictures(found: Found) -> dict[str, str]:
    """Names of files with their pictures."""
    made = {}
    for scenario in SCENARIOS:
        if scenario.name in PLOTTED and scenario.name in found.scenarios:
            figure, unit = scenario.shows[0]
            rows = _ranked(found, scenario)
            bars = [
                plot.Bar(_short(row), row.all(figure), row.median(figure) or 0) for _, row in rows if row.all(figure)
            ]
            better = "less is better" if scenario.least else "more is better"
            made[f"performance-{scenario.name}.svg"] = plot.bars(scenario.title, f"{unit}, {better}", bars)
    return made


def table(found: Found, scenario: Scenario) -> str:
    """One scenario, best first: medians with the range of the rounds, how FlowKit compares, guarantees."""
    rows = _ranked(found, scenario)
    compared = sum(key == OURS for key, _ in rows) and len(rows) > 1
    promised = any(row.guarantees for _, row in rows) and len({row.guarantees for _, row in rows}) > 1
    heads = ["", *(head for _, head in scenario.shows)]
    heads += ["FlowKit on SQLite is"] * bool(compared) + ["guarantees"] * promised
    lines = [heads, ["---"] * len(heads)]
    for key, row in rows:
        cells = [row.title, *(_cell(row, figure) for figure, _ in scenario.shows)]
        if compared:
            cells.append(_compared(found, scenario, key) if row.guarantees else "")
        if promised:
            cells.append(row.guarantees)
        lines.append(cells)
    said = ["| " + " | ".join(cells) + " |" for cells in lines]
    failed = [f"\n{row.title} failed: {row.failure}" for _, row in rows if row.failure]
    return "\n".join(said + failed)


def explained(found: Found, name: str) -> str:
    """A sentence that follows from the figures, so that it changes with them."""
    rows = found.scenarios.get(name, {})
    said = ""
    if name == "idle" and {OURS, "raw"} <= rows.keys():
        ours, raw = (rows[key].median("p50_ms") or 0 for key in (OURS, "raw"))
        said = (
            "Until its last step runs, a chain of five has put ten messages through a queue: a start, five tasks, four "
            f"results. The raw path needs {raw:.1f} ms for them, {raw / 10:.2f} ms each, nearly all of it the broker's "
            f"write to disk. FlowKit needs {max(0, ours - raw):.1f} ms more: five transactions (one for the start, one "
            f"for each result) and its Python, {max(0, ours - raw) / 5:.2f} ms each."
        )
    if name == "logs" and len(rows) == 2:
        without, ten = rows.values()
        rate = 10 * (ten.median("per_second") or 0)
        cost = (ten.median("cpu_us") or 0) - (without.median("cpu_us") or 0)
        said = (
            f"That is {rate:,.0f} lines a second, and ten lines cost a task {cost:,.0f} µs of its worker's processor."
        )
    return f"\n\n{said}" if said else ""


def _ranked(found: Found, scenario: Scenario) -> list[tuple[str, Row]]:
    figure = scenario.shows[0][0]
    sign = 1 if scenario.least else -1
    rows = found.scenarios.get(scenario.name, {})
    if any(": " in key for key in rows):  # several cases of one system: their order says more
        return list(rows.items())
    return sorted(rows.items(), key=lambda one: sign * (one[1].median(figure) or sign * 1e12))


def _compared(found: Found, scenario: Scenario, key: str) -> str:
    figure = scenario.shows[0][0]
    ratio = found.ratio(scenario.name, figure, OURS, [key])
    if ratio is None or key == OURS:
        return ""
    return f"{1 / ratio if scenario.least else ratio:.2f} × as fast"


def _cell(row: Row, figure: str) -> str:
    values = row.all(figure)
    if not values:
        return "failed" if row.failure else ""
    text = _number(row.median(figure) or 0)
    low, high = _number(min(values)), _number(max(values))
    return text if low == high else f"{text} ({low} – {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _short(row: Row) -> str:
    """A title for a bar; with what it promises, for two bars of a peer would look the same."""
    if row.title.startswith(("FlowKit", "raw")):
        return row.title
    when = row.guarantees.partition(" ")[0]
    confirms = "no confirms" if "no confirms" in row.guarantees else "confirms"
    return f"{re.sub(VERSION, '', row.title)} ({when} ack, {confirms})"


def _machine(found: Found) -> str:
    about = found.machine
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    rounds = max((len(row.rounds) for rows in found.scenarios.values() for row in rows.values()), default=0)
    return (
        f"Measured on {about['date']}: {about['cores']} cores ({about['processor']}), {about['memory_gb']} GB, load "
        f"{about['load']:.1f} before it began, {rounds} rounds; {versions}."
    )


def _targets(found: Found) -> str:
    lines = ["| scenario | target | reached | |", "| --- | --- | --- | --- |"]
    for one in targets(found):
        kept = "" if one.reached is None else "yes" if one.kept else "**no**"
        lines.append(f"| {one.what} | {one.wanted} | {one.said} | {kept} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write(Found.read(LATEST))
