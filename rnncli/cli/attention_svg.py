"""Attention as a picture: one grid for each translation, one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from rnncli.cli.console import printable
from rnncli.cli.svg import COLOURS, text_at

if TYPE_CHECKING:
    from rnncli.evaluation.alignment import Alignment

CELL, GAP = 22, 16
_CHARACTER = 7.5  # about as wide as one is in this size
_SLANT = 0.71  # the sine of 45 degrees


def page(title: str, alignments: Sequence[Alignment]) -> Iterator[str]:
    """The parts of an SVG document. Pointing at a square shows its pieces and its weight."""
    title = printable(title)
    sizes = [_Size(one) for one in alignments]
    width = max([400.0, *(size.width for size in sizes)])
    top = 40.0
    height = top + sum(size.height for size in sizes)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="11">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>\n'
        f"{text_at(12, 24, title, size=14)}\n"
    )
    for one, size in zip(alignments, sizes, strict=True):
        yield f'<g transform="translate(0,{top:.1f})">\n'
        yield "".join(f"{element}\n" for element in _grid(one, size))
        yield "</g>\n"
        top += size.height
    yield "</svg>\n"


class _Size:
    """Places in one grid, the origin being its upper left corner. ``left`` and ``head``: what the
    pieces' names take."""

    def __init__(self, one: Alignment) -> None:
        names = max(len(printable(piece)) for piece in one.source) * _CHARACTER
        self.left = 16 + max(len(printable(piece)) for piece in one.target) * _CHARACTER
        self.head = 12 + names * _SLANT
        self.width = self.left + len(one.source) * CELL + names * _SLANT + GAP
        self.height = self.head + len(one.target) * CELL + GAP


def _grid(one: Alignment, size: _Size) -> Iterator[str]:
    S, T = len(one.source), len(one.target)
    for s, piece in enumerate(one.source):
        x = size.left + (s + 0.6) * CELL
        name = text_at(0, 0, printable(piece))
        yield f'<g transform="translate({x:.1f},{size.head - 5:.1f}) rotate(-45)">{name}</g>'
    for t, (piece, weights) in enumerate(zip(one.target, one.weights.tolist(), strict=True)):
        y = size.head + t * CELL
        yield text_at(size.left - 6, y + 0.68 * CELL, printable(piece), anchor="end")
        for s, weight in enumerate(weights):
            said = f"{printable(piece)} ← {printable(one.source[s])}: {weight:.3f}"
            yield (
                f'<rect x="{size.left + s * CELL:.1f}" y="{y:.1f}" width="{CELL}" height="{CELL}" '
                f'fill="{COLOURS[0]}" fill-opacity="{weight:.3f}"><title>{escape(said)}</title>'
                "</rect>"
            )
    yield (
        f'<rect x="{size.left:.1f}" y="{size.head:.1f}" width="{S * CELL}" height="{T * CELL}" '
        'fill="none" stroke="#333"/>'
    )
