"""``rnncli zoo``: the published models, and the configuration of each."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rnncli.cli.console import is_terminal, print_json

if TYPE_CHECKING:
    from rnncli.zoo import Entry

EXAMPLES = """
rnncli zoo
rnncli zoo zaremba2014-medium > my.toml
rnncli zoo awd-lstm --json
"""

_COLUMNS = ("name", "model", "paper", "should reach")


def zoo(
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="Print this model's configuration.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, Option("--json", help="Print JSON: a list of all models, or one object.")
    ] = False,
) -> None:
    """List published models, or print the configuration of one, for train --config."""
    from rnncli.zoo import list_entries, load_entry

    if name is not None:
        entry = load_entry(name)
        if as_json:
            print_json({**_summary(entry), "config": entry.config.to_dict()})
        else:
            sys.stdout.write(entry.toml())
    elif as_json:
        print_json([_summary(entry) for entry in list_entries()])
    else:
        _print_rows([_row(entry) for entry in list_entries()])


def _row(entry: Entry) -> tuple[str, ...]:
    return entry.name, entry.model, entry.paper.citation, entry.paper.figure


def _summary(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "model": entry.model, "paper": asdict(entry.paper)}


def _print_rows(rows: list[tuple[str, ...]]) -> None:
    """A table on a terminal, else one aligned line a model, columns two spaces apart."""
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*_COLUMNS)
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*map(Text, row))
        Console(highlight=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
