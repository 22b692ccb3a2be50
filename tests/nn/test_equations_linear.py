"""Recurrences that are linear in their state: the equations written out once more, and that what
is run for all time steps at once is what is run step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.recurrence import engines, run
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig
from tests.nn.cases import H, I, assert_equal, random_input, randomize

T, B = 6, 2


def make(name: str, inputs: int = I, hidden: int = H, **options: Any) -> Cell:
    cell = make_cell(ModelConfig(cell=name, **options), inputs, hidden).double()
    randomize(cell)
    return cell.requires_grad_(False)


def outputs(cell: Cell, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
    return run(cell, x, state, cell.step_weights(), engine="auto", dtype=torch.float64)


def inputs(cell: Cell) -> tuple[Tensor, CellState]:
    x, state = random_input(cell, T, B)
    return x.detach(), tuple(part.detach() for part in state)


def g(kind: str, v: Tensor) -> Tensor:
    """v, or as the paper's app. B has it, value by value: v + 1/2 for v >= 0, else sigmoid(v)."""
    if kind == "linear":
        return v
    values = [u + 0.5 if u >= 0 else 1 / (1 + math.exp(-u)) for u in v.flatten().tolist()]
    return torch.tensor(values, dtype=v.dtype).view_as(v)


CANDIDATES = pytest.mark.parametrize("candidate", ["linear", "positive"])


@CANDIDATES
def test_mingru(candidate: str) -> None:
    cell = make("mingru", candidate=candidate)
    x, (h,) = inputs(cell)
    found, _ = outputs(cell, x, (h,))
    (W_z, W_h), (b_z, b_h) = cell.W_xh.chunk(2), cell.a.chunk(2)
    for t in range(T):
        z = torch.sigmoid(x[t] @ W_z.T + b_z)
        h = (1 - z) * h + z * g(candidate, x[t] @ W_h.T + b_h)
        assert_equal(found[t], h)


@CANDIDATES
def test_minlstm(candidate: str) -> None:
    cell = make("minlstm", candidate=candidate)
    x, (h,) = inputs(cell)
    found, _ = outputs(cell, x, (h,))
    (W_f, W_i, W_h), (b_f, b_i, b_h) = cell.W_xh.chunk(3), cell.a.chunk(3)
    for t in range(T):
        f = torch.sigmoid(x[t] @ W_f.T + b_f)
        i = torch.sigmoid(x[t] @ W_i.T + b_i)
        h = f / (f + i) * h + i / (f + i) * g(candidate, x[t] @ W_h.T + b_h)
        assert_equal(found[t], h)


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_a_positive_candidate_is_the_scan_of_logarithms(name: str) -> None:
    """Feng et al. 2024, app. B: log h(t) is a logcumsumexp, from a positive state."""
    cell = make(name, candidate="positive")
    x, (h,) = inputs(cell)
    h = h.exp()
    found, _ = outputs(cell, x, (h,))
    *gates, v = (x @ cell.W_xh.T + cell.a).chunk(cell.gates, dim=-1)
    if name == "mingru":
        log_keep, log_write = -F.softplus(gates[0]), -F.softplus(-gates[0])
    else:
        difference = F.softplus(-gates[0]) - F.softplus(-gates[1])
        log_keep, log_write = -F.softplus(difference), -F.softplus(-difference)
    log_candidate = torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v))
    kept = F.pad(log_keep.cumsum(0), (0, 0, 0, 0, 1, 0))
    terms = torch.cat([h.log().unsqueeze(0), log_write + log_candidate]) - kept
    assert_equal(found, (kept + terms.logcumsumexp(0))[1:].exp())


def test_minlstm_with_both_gates_shut_is_still_a_number() -> None:
    cell = make("minlstm").float()
    cell.a[: 2 * H] = -200.0
    y, _ = outputs_in_float32(cell, torch.zeros(T, B, I))
    assert bool(torch.isfinite(y).all())


def outputs_in_float32(cell: Cell, x: Tensor) -> tuple[Tensor, CellState]:
    return run(cell, x, cell.zero_state(B), {}, engine="scan", dtype=torch.float32)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn(pooling: str, window: int) -> None:
    """The masked convolution is torch's, over the inputs with those before them in front."""
    cell = make("qrnn", pooling=pooling, window=window)
    x, (c, *earlier) = inputs(cell)
    found, last = outputs(cell, x, (c, *earlier))
    series = torch.cat([*(part.unsqueeze(0) for part in reversed(earlier)), x])
    kernel = cell.W_xh.view(-1, window, I).transpose(1, 2)  # (G, I, k), the last k is x(t)
    sums = F.conv1d(series.permute(1, 2, 0), kernel, cell.a).permute(2, 0, 1)
    assert sums.shape[:2] == (T, B)
    for t in range(T):
        z, f, *others = sums[t].chunk({"f": 2, "fo": 3, "ifo": 4}[pooling], dim=1)
        z, f = torch.tanh(z), torch.sigmoid(f)
        i = torch.sigmoid(others[1]) if pooling == "ifo" else 1 - f
        c = f * c + i * z
        assert_equal(found[t], c if pooling == "f" else torch.sigmoid(others[0]) * c)
    assert len(last) == window
    assert_equal(last[0], c)
    for k, part in enumerate(last[1:]):
        assert_equal(part, x[T - 1 - k])


@pytest.mark.parametrize("hidden", [I, H])
@pytest.mark.parametrize("vectors", [True, False])
def test_sru(vectors: bool, hidden: int) -> None:
    cell = make("sru", hidden=hidden, recurrent_vectors=vectors)
    x, state = inputs(cell)
    found, last = outputs(cell, x, state)
    c = state[-1]
    v_f, v_r = (cell.v_f, cell.v_r) if vectors else (0.0, 0.0)
    for t in range(T):
        wx, f, r, *past = (x[t] @ cell.W_xh.T + cell.a).split(hidden, dim=1)
        f, r = torch.sigmoid(f + v_f * c), torch.sigmoid(r + v_r * c)
        c = f * c + (1 - f) * wx
        h = r * c + (1 - r) * (x[t] if hidden == I else past[0])
        assert_equal(found[t], h)
    assert_equal(last[-1], c)


def test_rg_lru() -> None:
    cell = make("rg-lru")
    x, (h,) = inputs(cell)
    found, _ = outputs(cell, x, (h,))
    a = torch.sigmoid(cell.Lambda)
    for t in range(T):
        wx, r, i = (x[t] @ cell.W_xh.T + cell.a).chunk(3, dim=1)
        a_t = a ** (8 * torch.sigmoid(r))
        h = a_t * h + torch.sqrt(1 - a_t**2) * (torch.sigmoid(i) * wx)
        assert_equal(found[t], h)


def test_a_fresh_rg_lru_forgets_slowly() -> None:
    cell = make_cell(ModelConfig(cell="rg-lru"), I, 500).requires_grad_(False)
    rates = torch.sigmoid(cell.Lambda.double()) ** 8
    assert 0.9 - 1e-6 < float(rates.min()) < 0.905 and 0.994 < float(rates.max()) < 0.999 + 1e-6
    assert float(rates.mean()) == pytest.approx(0.9495, abs=0.005)


def test_a_recurrence_with_vectors_is_not_linear_and_has_no_scan() -> None:
    linear, not_linear = make("sru"), make("sru", recurrent_vectors=True)
    assert isinstance(linear, LinearCell) and "scan" in engines(linear)
    assert not isinstance(not_linear, LinearCell) and "scan" not in engines(not_linear)


LINEAR = [
    ("mingru", {}), ("minlstm", {}), ("minlstm", {"candidate": "positive"}), ("sru", {}),
    ("rg-lru", {}),
    ("qrnn", {"pooling": "f"}), ("qrnn", {"window": 3}), ("qrnn", {"pooling": "ifo"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), LINEAR, ids=str)
@pytest.mark.parametrize("length", [5, 200])
def test_at_once_and_in_pieces_and_step_by_step(
    name: str, options: dict[str, Any], length: int
) -> None:
    """200 steps are cut into chunks by the scan, 5 and pieces of 37 are not."""
    cell = make(name, **options)
    x, state = random_input(cell, length, B)
    x, state = x.detach(), tuple(part.detach() for part in state)
    whole, last = outputs(cell, x, state)
    carried, pieces = state, []
    for start in range(0, length, 37):
        y, carried = outputs(cell, x[start : start + 37], carried)
        pieces.append(y)
    single, steps = state, []
    for t in range(length):
        projected = cell.project(x[t : t + 1], single, torch.float64)
        single = cell.step(projected[0], single, lambda name, v: v)
        steps.append(cell.emit(single[0].unsqueeze(0), x[t : t + 1], projected, torch.float64))
    assert_equal(torch.cat(pieces), whole)
    assert_equal(torch.cat(steps), whole)
    for mine, other, expected in zip(carried, single, last, strict=True):
        assert_equal(mine, expected)
        assert_equal(other, expected)


@pytest.mark.parametrize(("name", "options"), LINEAR, ids=str)
def test_a_state_has_a_linear_effect(name: str, options: dict[str, Any]) -> None:
    """h(T) from the sum of two states, less h(T) from none, is the sum of what each adds."""
    cell = make(name, **options)
    x, (first, *kept) = inputs(cell)
    second = torch.randn(first.shape, generator=torch.Generator().manual_seed(5)).double()
    zero = torch.zeros_like(first)
    both, one, other, none = (
        outputs(cell, x, (start, *kept))[1][0] for start in (first + second, first, second, zero)
    )
    assert_equal(both - none, (one - none) + (other - none))


@pytest.mark.parametrize("training", [True, False])
def test_zoneout_leaves_the_inputs_that_a_state_keeps_alone(training: bool) -> None:
    cell = make("qrnn", window=3, zoneout=0.5, zoneout_cell=0.5).train(training)
    x, state = inputs(cell)
    _, last = outputs(cell, x, state)
    assert_equal(last[1], x[T - 1])
    assert_equal(last[2], x[T - 2])
