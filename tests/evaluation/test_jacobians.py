"""Jacobians and their norms, against torch's own and against the bounds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.evaluation import jacobians
from rnncli.evaluation.jacobians import Steps, product_norms, step_bounds, weight_bound
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence.trace import Trace, run_traced
from tests.nn.cases import KINDS, make, random_input

T, B = 5, 2


def traced(kind: str, hidden: int = 4) -> Trace:
    cell = make(kind, hidden=hidden)
    x, state = random_input(cell, T, B)
    weights = cell.step_weights()
    _, _, trace = run_traced(cell, x, state, weights, engine="reference", dtype=torch.float64)
    return trace


def whole_jacobian(trace: Trace, column: int, lag: int) -> Tensor:
    """ds(T)/ds(T - lag) by torch, of all steps between at once: (S, S)."""
    cell: Cell = trace.cell
    sizes = cell.state_sizes

    def later(flat: Tensor) -> Tensor:
        state = tuple(part.unsqueeze(0) for part in flat.split(sizes))
        for t in range(T - lag, T):
            projected = trace.projected[t, column].detach().unsqueeze(0)
            state = cell.step(projected, state, lambda n, v: F.linear(v, cell.step_weights()[n]))
        return torch.cat(state, 1)[0]

    start = torch.cat([part[column] for part in trace.states[T - lag]]).detach()
    return torch.autograd.functional.jacobian(later, start)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_of_products(kind: str) -> None:
    """Never above the bounds."""
    trace, lags = traced(kind), [0, 1, T]
    expected = torch.stack(
        [torch.linalg.matrix_norm(whole_jacobian(trace, 1, lag), 2) for lag in lags]
    )
    norms, steps = product_norms(trace, 1, lags)
    torch.testing.assert_close(norms, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(steps[-1], expected[1], rtol=1e-9, atol=1e-12)
    bounds = step_bounds(steps, lags)
    assert bool((norms <= bounds * (1 + 1e-12)).all())
    torch.testing.assert_close(bounds[2], steps.prod())


@pytest.mark.parametrize("kind", ["lstm", "gru-cho2014", "slstm", "mingru"])
def test_power_iteration_finds_the_same_norms(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From below."""
    trace, lags = traced(kind), [0, 1, 3, T]
    expected, expected_steps = product_norms(trace, 0, lags)
    monkeypatch.setattr(jacobians, "EXACT_SIZE", 0)
    monkeypatch.setattr(jacobians, "ITERATIONS", 300)
    monkeypatch.setattr(jacobians, "TOLERANCE", 1e-9)
    norms, steps = product_norms(trace, 0, lags)
    for found, exact in ((norms, expected), (steps, expected_steps)):
        torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-12)
        assert bool((found <= exact * (1 + 1e-9)).all())


def test_power_iteration_takes_lags_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = traced("lstm", hidden=6)
    lags = [2, 5, 0, 1, 4]
    expected, _ = product_norms(trace, 0, lags)
    monkeypatch.setattr(jacobians, "EXACT_SIZE", 0)
    found, _ = product_norms(trace, 0, lags)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", ["lstm", "gru-cho2014", "slstm"])
def test_maps_forward_and_back_are_those_of_the_matrix(kind: str) -> None:
    trace = traced(kind)
    before = [torch.stack(part).flatten(0, 1) for part in zip(*trace.states[:-1], strict=True)]
    steps = Steps(trace.cell, trace.projected.flatten(0, 1), before)
    J = steps.matrices()
    v = torch.randn(J.shape[:2], dtype=torch.float64)
    torch.testing.assert_close(steps.forth(v), (J @ v.unsqueeze(2)).squeeze(2))
    torch.testing.assert_close(steps.back(v), (J.mT @ v.unsqueeze(2)).squeeze(2))


@pytest.mark.parametrize("kind", ["elman-tanh", "elman-sigmoid", "elman-relu"])
def test_the_bound_by_the_weights(kind: str) -> None:
    """It holds wherever the state is, and is reached where every slope is the largest."""
    trace = traced(kind)
    bound = weight_bound(trace.cell)
    norms, steps = product_norms(trace, 0, range(T + 1))
    assert bool((steps <= bound * (1 + 1e-12)).all())
    assert all(float(norm) <= bound**lag * (1 + 1e-12) for lag, norm in enumerate(norms))
    slope = 0.25 if kind == "elman-sigmoid" else 1.0
    steepest = torch.full((1, 4), 1e-9, dtype=torch.float64)  # of relu: just above 0
    h = torch.linalg.solve(trace.cell.W_hh, torch.full((4, 1), 1e-9, dtype=torch.float64)).T
    J = Steps(trace.cell, 0 * steepest, [h]).matrices()[0]
    torch.testing.assert_close(J, slope * trace.cell.W_hh.detach(), rtol=1e-6, atol=1e-9)
    assert float(torch.linalg.matrix_norm(J, 2)) == pytest.approx(bound)


@pytest.mark.parametrize("kind", ["lstm", "elman-layer-norm", "echo-state", "indrnn"])
def test_no_bound_by_weights_where_they_do_not_bound(kind: str) -> None:
    assert weight_bound(make(kind)) is None
