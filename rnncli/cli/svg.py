"""Line charts as SVG, written out by hand: a picture that any browser shows, without a library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which people with any colour vision can tell apart."""

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 34, 42
SMALLEST = 1e-300
"""Less than this has no place on a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """Points (x, y) under a ``label`` of the legend; ``band``: the same x with a low and a high y.
    ``colour``: which of ``COLOURS``."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """One chart. ``log``: the y axis is logarithmic, and what is not above 0 is left out."""

    title: str
    x_label: str
    lines: Sequence[Line]
    log: bool = False


def draw(title: str, panels: Sequence[Panel]) -> str:
    """The panels one below the other: an SVG document."""
    height = 40 + HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        text_at(12, 24, title, size=14),
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate(0,{40 + HEIGHT * number})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    """The elements of one chart, the origin being its upper left corner."""
    axes = _Axes(panel)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield text_at(LEFT, TOP - 12, panel.title, size=12)
    for value, label in axes.y_ticks():
        y = axes.y(value)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>'
        yield text_at(LEFT - 6, y + 4, label, anchor="end")
    for value, label in axes.x_ticks():
        yield text_at(axes.x(value), bottom + 16, label, anchor="middle")
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#333"/>'
    yield text_at((LEFT + right) / 2, bottom + 32, panel.x_label, anchor="middle")
    for line in panel.lines:
        colour = COLOURS[line.colour % len(COLOURS)]
        band = [
            (x, low, high) for x, low, high in line.band if axes.shows(low) and axes.shows(high)
        ]
        if len(band) > 1:
            there = [axes.place(x, high) for x, _, high in band]
            back = [axes.place(x, low) for x, low, _ in reversed(band)]
            yield f'<polygon points="{" ".join(there + back)}" fill="{colour}" opacity="0.15"/>'
        points = " ".join(axes.place(x, y) for x, y in line.points if axes.shows(y))
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        yield f'<polyline points="{points}" fill="none" stroke="{colour}"{dash}/>'
    apart = min(15.0, (bottom - TOP) / max(1, len(panel.lines)))
    for number, line in enumerate(panel.lines):
        colour = COLOURS[line.colour % len(COLOURS)]
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        y = TOP + 8 + apart * number
        yield f'<path d="M{right + 10} {y:.1f}h18" stroke="{colour}"{dash}/>'
        yield text_at(right + 32, y + 4, line.label)


class _Axes:
    """From values to places."""

    def __init__(self, panel: Panel) -> None:
        self.log = panel.log
        xs = [x for line in panel.lines for x, _ in line.points] or [0.0]
        ys = [y for line in panel.lines for _, y in line.points]
        ys += [y for line in panel.lines for _, *pair in line.band for y in pair]
        ys = [self._scaled(y) for y in ys if self.shows(y)] or [0.0]
        self.x_low, self.x_high = min(xs), max(max(xs), min(xs) + 1)
        self.y_low, self.y_high = min(ys), max(ys)
        if self.log:
            self.y_low, self.y_high = math.floor(self.y_low), math.ceil(self.y_high)
        if self.y_high - self.y_low < 1e-12:
            self.y_high = self.y_low + 1

    def shows(self, y: float) -> bool:
        return math.isfinite(y) and (y > SMALLEST or not self.log)

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self.log else y

    def x(self, x: float) -> float:
        share = (x - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, y: float) -> float:
        share = (self._scaled(y) - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def place(self, x: float, y: float) -> str:
        return f"{self.x(x):.1f},{self.y(y):.1f}"

    def x_ticks(self) -> list[tuple[float, str]]:
        return [(value, f"{value:g}") for value in _round_values(self.x_low, self.x_high)]

    def y_ticks(self) -> list[tuple[float, str]]:
        if not self.log:
            return [(value, f"{value:g}") for value in _round_values(self.y_low, self.y_high)]
        low, high = int(self.y_low), int(self.y_high)
        step = max(1, math.ceil((high - low) / 6))
        powers = range(low, min(high, 308) + 1, step)  # 10^308 is a number still
        return [(10.0**power, f"1e{power}") for power in powers]


def _round_values(low: float, high: float) -> list[float]:
    """Some five round numbers from ``low`` to ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def text_at(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    """An element with ``text``, whose ``anchor`` (start, middle, end) is at (x, y)."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
