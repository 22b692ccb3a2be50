"""Attention as a grid: on a terminal in colour, in blocks of five shades where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rnncli.cli.console import note, printable
from rnncli.cli.outputs import require_writable, write_output
from rnncli.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from rnncli.evaluation.alignment import Alignment
    from rnncli.loading import LoadedTranslator
    from rnncli.translation import Translated

SHADES = " ░▒▓█"
"""What a weight of 0, 1/4, 1/2, 3/4 and 1 is drawn as."""

LEGEND = (
    "attention: a row for each piece of the translation, a column for each of the source; "
    "░ is 1/4 of the row's weight, █ all of it"
)
LONGEST = 24
"""Cells of a terminal for a piece; of longer ones the end is left out."""

_CELL = 2  # the width of a column


class AttentionMaps:
    """Shows where translations looked, as they come: each on stderr (``drawn``), all of them in the
    file ``svg``, which ``finish`` writes. Raises UsageError for a model without attention."""

    def __init__(self, models: Sequence[LoadedTranslator], drawn: bool, svg: str | None) -> None:
        from rnncli.evaluation.alignment import require_attention

        if svg == "-":
            raise UsageError("--explain-svg -: standard output has the translations; give a file")
        require_writable(svg)
        require_attention(models)
        self._models, self._drawn, self._svg = models, drawn, svg
        self._kept: list[Alignment] = []
        if drawn:
            note(LEGEND)

    def add(self, line: str, found: Translated) -> None:
        """Show where ``found``, a translation of ``line``, looked."""
        from rnncli.evaluation.alignment import align

        one = align(self._models, line, found)
        if self._drawn:
            print_grid(one)
        if self._svg is not None:
            self._kept.append(one)

    def finish(self) -> None:
        """Write the file, if there is to be one; raises FileError."""
        if self._svg is None:
            return
        from rnncli.cli.attention_svg import page

        parts = page(f"Attention of {', '.join(str(m.path) for m in self._models)}", self._kept)
        write_output(self._svg, (part.encode(errors="replace") for part in parts))


def print_grid(one: Alignment) -> None:
    """Draw on stderr; rich leaves colours out where there is no terminal, or for NO_COLOR."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        for line in grid(one, console.width):
            console.print(line, soft_wrap=True)


def grid(one: Alignment, width: int) -> Iterator[Text]:
    """The lines of a drawing that is at most ``width`` cells wide, where that leaves room for a
    column: columns that do not stand side by side go below each other. A blank line ends it."""
    from rich.cells import cell_len
    from rich.text import Text

    labels = [_clipped(piece) for piece in one.target]
    margin = max(sum(map(cell_len, label)) for label in labels)
    columns = max(1, (width - margin - 1) // _CELL)
    for start in range(0, len(one.source), columns):
        for heading in _headings(one.source[start : start + columns]):
            yield Text(" " * (margin + 1) + heading)
        for label, weights in zip(labels, one.weights.tolist(), strict=True):
            padding = " " * (margin - sum(map(cell_len, label)))
            line = Text(f"{padding}{''.join(label)} ")
            for weight in weights[start : start + columns]:
                line.append(SHADES[_level(weight, len(SHADES) - 1)] * _CELL, _style(weight))
            yield line
        yield Text()


def _headings(pieces: Sequence[str]) -> Iterator[str]:
    """The pieces from top to bottom, each above its column, their ends in the last line."""
    from rich.cells import cell_len

    stacks = [_clipped(piece) for piece in pieces]
    height = max(map(len, stacks))
    for row in range(height):
        cells = [
            stack[row - height + len(stack)] if row >= height - len(stack) else ""
            for stack in stacks
        ]
        yield "".join(cell + " " * (_CELL - cell_len(cell)) for cell in cells).rstrip()


def _clipped(piece: str) -> list[str]:
    """What a terminal shows of a piece, character by character, each with its combining marks."""
    from rich.cells import cell_len

    characters: list[str] = []
    for char in printable(piece):
        if characters and cell_len(char) == 0:
            characters[-1] += char
        else:
            characters.append(char)
    if sum(map(cell_len, characters)) <= LONGEST:
        return characters
    while sum(map(cell_len, characters)) >= LONGEST:
        characters.pop()
    return [*characters, "…"]


def _level(weight: float, levels: int) -> int:
    return max(0, min(levels, round(levels * weight)))


def _style(weight: float) -> str:
    """Ink and paper of one colour: where there are colours, the block is not to be seen."""
    from rnncli.cli.colouring import LEVELS, shade

    level = _level(weight, LEVELS)
    colour = "rgb({},{},{})".format(*shade(level))
    return f"{colour} on {colour}" if level else ""
