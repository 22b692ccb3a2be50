"""Zoneout: what is kept, how often, and that it is a mean in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.zoneout import Zoneout
from rnncli.nn.recurrence import engines, run
from rnncli.nn.stack import Stack
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig
from tests.nn.cases import H, I, assert_equal, random_input, randomize

T, B = 5, 3


def zoned(name: str = "lstm", size: int = H, **config: Any) -> Cell:
    cell = make_cell(ModelConfig(cell=name, **config), I, size).double()
    randomize(cell)
    return cell


def outputs(cell: Cell, x: Tensor, state: CellState, engine: str) -> tuple[Tensor, CellState]:
    return run(cell, x, state, cell.step_weights(), engine=engine, dtype=torch.float64)


def test_no_zoneout_is_no_wrapper() -> None:
    assert not isinstance(zoned(), Zoneout)
    assert isinstance(zoned(zoneout=0.1), Zoneout)
    assert isinstance(zoned(zoneout_cell=0.1), Zoneout)


@pytest.mark.parametrize("engine", ["reference", "deferred"])
@pytest.mark.parametrize("name", ["lstm", "gru", "mogrifier"])
def test_evaluation_takes_the_mean_and_its_gradients_are_exact(name: str, engine: str) -> None:
    """Krueger et al. 2017, eq. 7 with d at its mean; the new h is made from the new cell before
    zoneout."""
    cell = zoned(name, zoneout=0.2, zoneout_cell=0.5).eval()
    assert isinstance(cell, Zoneout) and engine in engines(cell)
    x, state = random_input(cell, T, B)
    y, last = outputs(cell, x, state, engine)
    before = state
    for t in range(T):
        _, fresh = outputs(cell.cell, x[t : t + 1], before, "reference")
        rates = (0.2, 0.5)[: len(fresh)]
        before = tuple(
            rate * old + (1 - rate) * new
            for rate, old, new in zip(rates, before, fresh, strict=True)
        )
        assert_equal(y[t], before[0])
    leaves = [x, *state, *cell.parameters()]
    found = torch.autograd.grad(sum(part.pow(2).sum() for part in (y, *last)), leaves)
    expected_y = [y[t] for t in range(T)]
    again, last_again = outputs(cell, x, state, "reference")
    assert_equal(again, torch.stack(expected_y))
    expected = torch.autograd.grad(sum(p.pow(2).sum() for p in (again, *last_again)), leaves)
    for a, b in zip(found, expected, strict=True):
        assert_equal(a, b)
    numeric = torch.autograd.gradcheck(lambda v: outputs(cell, v, state, engine)[0], (x,))
    assert numeric


@pytest.mark.parametrize("engine", ["reference", "deferred"])
def test_training_keeps_units_at_the_rates_asked_for(engine: str) -> None:
    """A unit that is kept has exactly its value of the step before."""
    torch.manual_seed(0)
    cell = zoned("lstm", size=300, zoneout=0.3, zoneout_cell=0.1).train()
    x, state = random_input(cell, 3, 10)
    with torch.no_grad():
        before = state
        for t in range(3):
            _, after = outputs(cell, x[t : t + 1], before, engine)
            for part, rate in enumerate((0.3, 0.1)):
                kept = (after[part] == before[part]).double().mean()
                assert float(kept) == pytest.approx(rate, abs=0.03)
            _, fresh = outputs(cell.cell, x[t : t + 1], before, engine)
            for new, old, found in zip(fresh, before, after, strict=True):
                assert torch.equal(found, torch.where(found == old, old, new))
            before = after


def test_only_the_part_named_is_kept() -> None:
    torch.manual_seed(0)
    for rates, kept in (({"zoneout": 0.5}, (True, False)), ({"zoneout_cell": 0.5}, (False, True))):
        cell = zoned("lstm", size=50, **rates).train()
        x, state = random_input(cell, 1, 2)
        _, after = outputs(cell, x, state, "reference")
        found = tuple(bool((a == b).any()) for a, b in zip(after, state, strict=True))
        assert found == kept


def test_gradients_in_training_are_those_of_what_was_drawn() -> None:
    cell = zoned("lstm", zoneout=0.4, zoneout_cell=0.3).train()
    x, state = random_input(cell, T, B)
    leaves = [x, *state, *cell.parameters()]
    results = []
    for name in ("deferred", "reference"):
        torch.manual_seed(7)
        y, last = outputs(cell, x, state, name)
        loss = sum(part.pow(2).sum() for part in (y, *last))
        results.append([y.detach(), *torch.autograd.grad(loss, leaves)])
    for found, expected in zip(*results, strict=True):
        assert_equal(found, expected)
    torch.manual_seed(8)
    assert not torch.equal(outputs(cell, x, state, "deferred")[0], results[0][0])


def test_the_recurrent_matrices_keep_their_place() -> None:
    """Weight drop, penalties and ``frozen`` reach the cell inside."""
    cell = zoned("gru-cho2014", zoneout=0.1, frozen=("U",))
    assert list(cell.recurrent_weights()) == ["cell.W_hh", "cell.U"]
    assert not dict(cell.named_parameters())["cell.U"].requires_grad


@pytest.mark.parametrize(
    ("cell", "field"),
    [("gru", "zoneout_cell"), ("mingru", "zoneout_cell"), ("elman", "zoneout_cell")],
)
def test_zoneout_of_what_a_cell_does_not_have_is_refused(cell: str, field: str) -> None:
    config = ModelConfig(cell=cell, hidden_size=4, **{field: 0.1})
    with pytest.raises(UsageError, match=rf"model\.{field}: the state of {cell} has no such part"):
        Stack(config, 4)


def test_in_a_mixture_it_is_for_the_layers_that_have_it() -> None:
    stack = Stack(ModelConfig(cell="lstm,gru", hidden_size=4, zoneout_cell=0.1), 4)
    assert [isinstance(cell, Zoneout) for cell in stack.layers] == [True, False]
