"""Bars as an SVG: a median each, with a line from the least to the most of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 880, 390, 80, 22, 44  # pixels
COLOURS = {"FlowKit": "#1f6fb4", "raw": "#9aa0a6"}
PEER = "#d98b3a"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        title: what it stands for.
        values: of the rounds.
        middle: their median.
    """

    title: str
    values: Sequence[float]
    middle: float


def bars(title: str, unit: str, found: Sequence[Bar]) -> str:
    """One picture, readable in a dark page too, for it brings its own ground."""
    height = TOP + ROW * len(found) + 12
    most = max((max(one.values) for one in found), default=1.0) or 1.0
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="20" font-size="14" fill="#222">{escape(title)}</text>',
        f'<text x="{WIDTH - 12}" y="20" text-anchor="end" fill="#666">{escape(unit)}</text>',
    ]
    for number, one in enumerate(found):
        parts += _bar(one, TOP + ROW * number, most)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(one: Bar, top: float, most: float) -> list[str]:
    scale = (WIDTH - LEFT - RIGHT) / most
    colour = next((colour for word, colour in COLOURS.items() if one.title.startswith(word)), PEER)
    least, highest, middle = min(one.values) * scale, max(one.values) * scale, top + ROW / 2 - 1
    weight = ' font-weight="bold"' if one.title.startswith("FlowKit") else ""
    end = LEFT + max(highest, one.middle * scale) + 7
    return [
        f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end" fill="#222"{weight}>{escape(one.title)}</text>',
        f'<rect x="{LEFT}" y="{top + 2}" width="{one.middle * scale:.1f}" height="{ROW - 7}" fill="{colour}"/>',
        f'<path d="M{LEFT + least:.1f} {middle}H{LEFT + highest:.1f}" stroke="#222" stroke-width="1.2"/>',
        f'<text x="{end:.1f}" y="{middle + 4}" fill="#222">{_number(one.middle)}</text>',
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
