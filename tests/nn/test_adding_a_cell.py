"""What docs/cells.md says of adding a cell, done as it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import rnncli
from rnncli.cell_table import CELLS, CellRow
from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence import engines, run
from rnncli.sections import ModelConfig
from tests.helpers import ROOT
from tests.training.runs import run as train
from tests.training.runs import tiny_config, write_text

PAGE = (ROOT / "docs" / "cells.md").read_text(encoding="utf-8").partition("## Adding a cell")[2]


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's file, and its row of the table."""
    code, row = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    module = ModuleType("rnncli.nn.cells.leaky")
    vars(module).update({"torch": torch, "Cell": Cell})
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name, value in eval(f"{{{row}}}", {"CellRow": CellRow}).items():
        monkeypatch.setitem(CELLS, name, value)


def test_the_cell_of_the_page_is_its_equation(leaky: None) -> None:
    torch.manual_seed(0)
    cell = make_cell(ModelConfig(cell="leaky"), 3, 4).double()
    x, h = torch.randn(5, 2, 3, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    start = cell.zero_state(2)
    assert set(engines(cell)) >= {"reference", "deferred"}
    found = {
        engine: run(cell, x, start, cell.step_weights(), engine=engine, dtype=x.dtype)[0]
        for engine in ("auto", "reference", "deferred")
    }
    for t in range(5):
        h = h / 2 + torch.tanh(x[t] @ cell.W_xh.T + h @ cell.W_hh.T + cell.a) / 2
        for y in found.values():
            torch.testing.assert_close(y[t], h)
    gradients = [
        torch.autograd.grad(found[engine].pow(2).sum(), list(cell.parameters()), retain_graph=True)
        for engine in ("reference", "deferred")
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_it_is_trained_and_writes(leaky: None, tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    train(tiny_config(text, model__cell="leaky", model__layers=2), tmp_path / "run")
    model = rnncli.load(tmp_path / "run")
    assert model.config.model.cell == "leaky"
    assert len(model.generate(max_new_tokens=20, seed=1)) > 0
    assert all(score < 0 for score in model.score(["ab abc", ""]))
