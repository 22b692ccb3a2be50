"""What a command says to people: notes on stderr, tables on stdout."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any


def note(text: str) -> None:
    """Say ``text`` on stderr, where nothing that a pipe reads goes."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be closed
        sys.stderr.write(f"rnncli: {text}\n")
        sys.stderr.flush()


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether colour and motion may go to ``stream``; rich honours NO_COLOR by itself."""
    return stream is not None and stream.isatty()


def print_table(rows: Iterable[tuple[str, str]], title: str) -> None:
    """Print names and values on stdout: a table on a terminal, else aligned lines."""
    rows = [(printable(name), printable(value)) for name, value in rows]
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(printable(title)), title_justify="left", show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(name), Text(value))
        Console(highlight=False).print(table)
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        sys.stdout.write(f"{name:<{width}}  {value}".rstrip() + "\n")


def print_columns(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under the names of their columns; all but the first are right-aligned. A terminal
    that is too narrow for a table with lines between has the plain one, of which nothing is cut."""
    rows = [[printable(cell) for cell in row] for row in rows]
    everything = [list(names), *rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    if is_terminal(sys.stdout) and sum(widths) + 3 * len(widths) + 1 <= _terminal_width():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for number, name in enumerate(names):
            table.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        Console(highlight=False).print(table)
        return
    for row in everything:
        first, *others = (
            f"{cell:>{width}}" if number else f"{cell:<{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        sys.stdout.write("  ".join([first, *others]).rstrip() + "\n")


def _terminal_width() -> int:
    from rich.console import Console

    return Console().width


def print_json(value: Any) -> None:
    """Print one JSON object on a line of its own; what JSON has no number for is null."""
    import json

    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """``text`` without what a terminal would obey."""
    return "".join(f"\\x{ord(char):02x}" if is_obeyed(char) else char for char in text)


def is_obeyed(char: str) -> bool:
    """Whether a terminal does something at ``char`` instead of showing it, or shows what follows in
    another order: controls, ends of lines and paragraphs, marks of direction; and halves of
    characters, which cannot be written."""
    import unicodedata

    if char.isprintable():
        return False
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _DIRECTIONS


_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
