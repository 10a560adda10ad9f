"""Lines over time as an SVG: a few small charts below each other, readable without any program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 760, 110, 64, 150, 26, 34  # pixels
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
Series = Mapping[str, Sequence[tuple[float, float]]]


def charts(title: str, found: Mapping[str, Series], marks: Sequence[tuple[float, str]] = ()) -> str:
    """All charts in one picture.

    Args:
        title: above all of them.
        found: what is shown -> name of a line -> (minutes, value).
        marks: minutes at which something happened, and what.
    """
    end = max((x for series in found.values() for line in series.values() for x, _ in line), default=1.0)
    height = TOP + len(found) * (HEIGHT + GAP) + 20
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="16" font-size="13">{escape(title)}</text>',
    ]
    for number, (what, series) in enumerate(found.items()):
        parts += _chart(what, series, marks, TOP + number * (HEIGHT + GAP), end)
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 6}" text-anchor="middle">minutes</text></svg>')
    return "\n".join(parts) + "\n"


def _chart(what: str, series: Series, marks: Sequence[tuple[float, str]], top: float, end: float) -> list[str]:
    most = _above(max((y for line in series.values() for _, y in line), default=1.0))
    wide, base = WIDTH - LEFT - RIGHT, top + HEIGHT + 14

    def place(x: float, y: float) -> str:
        return f"{LEFT + wide * x / end:.1f},{base - HEIGHT * y / most:.1f}"

    parts = [f'<text x="{LEFT}" y="{top + 10}" fill="#555">{escape(what)}</text>']
    for share in (0, 0.5, 1):
        y = base - HEIGHT * share
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + wide}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{most * share:,.4g}</text>')
    for minute, said in marks:
        x = LEFT + wide * minute / end
        parts.append(f'<path d="M{x:.1f} {base}V{base - HEIGHT}" stroke="#bbb" stroke-dasharray="2 3">'
                     f"<title>{escape(said)}</title></path>")  # fmt: skip
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(place(x, y) for x, y in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + wide + 8}" y="{top + 26 + 14 * number}" fill="{colour}">{escape(name)}</text>')
    for minute in range(0, int(end) + 1, max(1, int(end) // 10)):
        x = LEFT + wide * minute / end
        parts.append(f'<text x="{x:.1f}" y="{base + 12}" text-anchor="middle" fill="#555">{minute}</text>')
    return parts


def _above(value: float) -> float:
    """A round number over this one, for the end of an axis."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if unit * step >= 1.02 * value or step == 10)
