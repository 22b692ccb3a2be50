"""docs/cells.md: its table is that of the program, and it describes every cell and engine."""

from __future__ import annotations

import re

import pytest

from rnncli.cell_table import CELLS
from rnncli.nn.cells.__main__ import BEGIN, END, page
from rnncli.sections import ENGINES, MEASURED
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "cells.md").read_text(encoding="utf-8")


def test_the_table_is_current() -> None:
    assert page(PAGE) == PAGE, "run python -m rnncli.nn.cells docs/cells.md"
    head, _, rest = PAGE.partition(BEGIN)
    table, _, tail = rest.partition(END)
    rows = [re.split(r" \| ", line.strip("| \n")) for line in table.split("\n") if "`" in line]
    assert [row[0].strip("`") for row in rows[1:]] == list(CELLS)
    for name, *_, options, engines in rows[1:]:
        for option, value in CELLS[name.strip("`")].options.items():
            assert f"`{option}={str(value).lower()}`" in options
        assert ("scan" in engines) == (name.strip("`") in LINEAR)
    with pytest.raises(ValueError, match="lacks the line"):
        page(head + table + tail)


LINEAR = {"mingru", "minlstm", "qrnn", "sru", "rg-lru"}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_its_equations(name: str) -> None:
    named = {
        one for group in re.findall(r"\*\*([a-z0-9, -]+)\*\*", PAGE) for one in group.split(", ")
    }
    assert name in named


def test_every_engine_is_explained() -> None:
    table = PAGE.partition("## Engines")[2]
    for engine in ENGINES:
        how = f"--engine {engine}" if engine in ("auto", MEASURED) else f"| `{engine}` |"
        assert how in table
