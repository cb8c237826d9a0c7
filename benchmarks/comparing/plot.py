"""The figures as a picture: an SVG with a dot for each median, a line from the smallest to the largest round.

The axis is logarithmic, since the contenders lie up to a thousandfold apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple
from xml.sax.saxutils import escape

from comparing.summary import Spread

_WIDTH = 960
_LEFT, _RIGHT = 220, 190
_ROW, _GROUP, _TOP, _LINE = 24, 40, 64, 16
_COLOURS = ("#1b6ac9", "#d95f02", "#7a7a7a")
_STYLE = "text{font:13px sans-serif;fill:#222}.s{font-size:11px;fill:#666}.t{font-size:16px;font-weight:bold}"


class Dots(NamedTuple):
    """One row: a name and its figures, each with its spread; `mark` puts it forward."""

    name: str
    figures: list[Spread]
    mark: bool = False


def svg(title: str, unit: str, groups: list[tuple[str, list[Dots]]], legend: list[str], footer: list[str]) -> str:
    """The whole picture. `legend`: what the figures of a row are, where there is more than one."""
    every = [figure for _, rows in groups for row in rows for figure in row.figures]
    every = every or [Spread(1, 1, 1)]  # nothing counts: axes without dots
    low = math.floor(math.log10(min(figure.low for figure in every)))
    high = max(math.ceil(math.log10(max(figure.high for figure in every))), low + 1)

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [_text(16, 26, title, "t"), *_legend(legend)]
    y = _TOP
    for name, rows in groups:
        parts.append(_text(16, y + 14, name, "s"))
        y += _GROUP - _ROW // 2
        parts += [
            line for power in range(low, high + 1) for line in _tick(x(10.0**power), y - 4, len(rows), power, unit)
        ]
        for row in rows:
            parts += _dots(row, x, y + _ROW // 2)
            y += _ROW
        y += _GROUP
    for line in footer:
        parts.append(_text(16, y, line, "s"))
        y += _LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}">\n'
        f'<style>{_STYLE}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _legend(legend: list[str]) -> list[str]:
    return [
        f'<circle cx="{20 + 90 * number}" cy="44" r="5" fill="{_COLOURS[number]}"/>'
        + _text(30 + 90 * number, 48, name, "s")
        for number, name in enumerate(legend)
    ]


def _tick(x: float, y: float, rows: int, power: int, unit: str) -> list[str]:
    below = y + rows * _ROW + 8
    label = f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
    return [
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{below:.1f}" stroke="#ddd"/>',
        _text(x, below + 14, f"{label} {unit}", "s", "middle"),
    ]


def _dots(row: Dots, x: Callable[[float], float], y: float) -> list[str]:
    parts = [_text(_LEFT - 12, y + 5, row.name, "", "end", bold=row.mark)]
    for figure, colour in zip(row.figures, _COLOURS, strict=False):
        whisker = f'x1="{x(figure.low):.1f}" y1="{y}" x2="{x(figure.high):.1f}" y2="{y}"'
        parts += [
            f'<line {whisker} stroke="{colour}" stroke-width="3" stroke-opacity="0.4"/>',
            f'<circle cx="{x(figure.median):.1f}" cy="{y}" r="5" fill="{colour}"/>',
        ]
    shown = ", ".join(_shown(figure.median) for figure in row.figures)
    return [*parts, _text(_WIDTH - _RIGHT + 20, y + 5, shown, "s")]


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' style="font-weight:bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
