"""Deep transitions, recurrent highways and fast-slow networks: the equations written out again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence import run
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig
from tests.nn.cases import H, I, assert_equal, random_input, randomize

T, B = 6, 2


def make(name: str, inputs: int = I, hidden: int = H, **options: Any) -> Cell:
    cell = make_cell(ModelConfig(cell=name, **options), inputs, hidden).double()
    randomize(cell)
    return cell


def outputs(cell: Cell, x: Tensor, state: CellState) -> Tensor:
    y, _ = run(cell, x, state, cell.step_weights(), engine="auto", dtype=torch.float64)
    return y.detach()


def weights(cell: Cell) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in cell.named_parameters()}


@pytest.mark.parametrize("f", ["tanh", "sigmoid", "relu"])
def test_a_transition_of_one_layer_is_elman_s_network(f: str) -> None:
    shallow = make("dt-rnn", transition_depth=1, nonlinearity=f)
    elman = make("elman", nonlinearity=f)
    assert weights(shallow).keys() == weights(elman).keys()
    x, state = random_input(elman, T, B)
    assert_equal(outputs(shallow, x, state), outputs(elman, x, state))


def test_dt_rnn() -> None:
    cell = make("dt-rnn", transition_depth=3)
    w = weights(cell)
    x, (h,) = random_input(cell, T, B)
    found = outputs(cell, x, (h,))
    for t in range(T):
        z = torch.sigmoid(h @ w["W_hh"].T + x[t] @ w["W_xh"].T + w["a"])
        z = torch.sigmoid(z @ w["W_2"].T + w["a_2"])
        h = torch.sigmoid(z @ w["W_3"].T + w["a_3"])
        assert_equal(found[t], h)


def test_the_shortcuts_are_a_full_matrix_for_every_layer_above_the_first() -> None:
    cell = make("dts-rnn", transition_depth=3)
    w = weights(cell)
    W_1, S_2, S_3 = w["W_hh"].chunk(3)
    x, (h,) = random_input(cell, T, B)
    found = outputs(cell, x, (h,))
    for t in range(T):
        z = torch.sigmoid(W_1 @ h.T + w["W_xh"] @ x[t].T + w["a"][:, None])
        z = torch.sigmoid(w["W_2"] @ z + S_2 @ h.T + w["a_2"][:, None])
        h = torch.sigmoid(w["W_3"] @ z + S_3 @ h.T + w["a_3"][:, None]).T
        assert_equal(found[t], h)


def test_the_input_may_go_to_every_layer() -> None:
    cell = make("dts-rnn", transition_input="all")
    w = weights(cell)
    assert w.keys() == {"W_xh", "W_hh", "a", "W_2"}
    (U_1, U_2), (W_1, S_2), (a_1, a_2) = w["W_xh"].chunk(2), w["W_hh"].chunk(2), w["a"].chunk(2)
    x, (h,) = random_input(cell, T, B)
    found = outputs(cell, x, (h,))
    for t in range(T):
        z = torch.sigmoid(h @ W_1.T + x[t] @ U_1.T + a_1)
        h = torch.sigmoid(z @ w["W_2"].T + h @ S_2.T + x[t] @ U_2.T + a_2)
        assert_equal(found[t], h)


def test_networks_before_and_after_the_transition() -> None:
    cell = make("dot-rnn", nonlinearity="tanh", input_depth=2, output_depth=2, output_size=5,
                output_nonlinearity="relu")  # fmt: skip
    w = weights(cell)
    x, (h,) = random_input(cell, T, B)
    found = outputs(cell, x, (h,))
    assert found.shape == (T, B, 5)
    for t in range(T):
        read = torch.tanh(x[t] @ w["inputs.0.W"].T + w["inputs.0.a"])
        read = torch.tanh(read @ w["inputs.1.W"].T + w["inputs.1.a"])
        z = torch.tanh(h @ w["W_hh"].T + read @ w["W_xh"].T + w["a"])
        h = torch.tanh(z @ w["W_2"].T + w["a_2"])
        y = torch.relu(h @ w["outputs.0.W"].T + w["outputs.0.a"])
        y = torch.relu(y @ w["outputs.1.W"].T + w["outputs.1.a"])
        assert_equal(found[t], y)


def test_maxout_takes_the_largest_of_the_pieces_of_each_unit() -> None:
    cell = make("dt-rnn", transition_depth=1, nonlinearity="maxout", maxout_pieces=3)
    w = weights(cell)
    x, (h,) = random_input(cell, T, B)
    found = outputs(cell, x, (h,))
    for t in range(T):
        v = h @ w["W_hh"].T + x[t] @ w["W_xh"].T + w["a"]
        h = torch.stack([v[:, j::H].max(dim=1).values for j in range(H)], dim=1)
        assert_equal(found[t], h)


def test_an_lp_unit_is_the_norm_of_its_pieces() -> None:
    """p = 1 + log(1 + e^rho); it starts as the Euclidean norm, as a mean."""
    cell = make("dt-rnn", transition_depth=1, nonlinearity="lp", maxout_pieces=2)
    w = weights(cell)
    x, (h,) = random_input(cell, T, B)
    found = outputs(cell, x, (h,))
    for t in range(T):
        v = h @ w["W_hh"].T + x[t] @ w["W_xh"].T + w["a"]
        p = 1 + torch.log(1 + torch.exp(w["rho_1"]))
        h = ((v[:, :H].abs() ** p + v[:, H:].abs() ** p) / 2) ** (1 / p)
        torch.testing.assert_close(found[t], h, rtol=1e-8, atol=1e-8)
    fresh = make_cell(ModelConfig(cell="dt-rnn", nonlinearity="lp"), I, H)
    for name, rho in weights(fresh).items():
        if name.startswith("rho"):
            torch.testing.assert_close(1 + torch.log1p(torch.exp(rho)), torch.full((H,), 2.0))


def test_lp_units_survive_a_preactivation_of_zero() -> None:
    start = {"recurrent_init": "normal", "recurrent_scale": 0.0}
    cell = make_cell(ModelConfig(cell="dt-rnn", nonlinearity="lp", **start), I, H)
    x = torch.zeros(3, B, I)
    y, _ = run(cell, x, cell.zero_state(B), cell.step_weights(), engine="auto", dtype=x.dtype)
    y.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in cell.parameters())


def test_a_size_of_an_output_network_without_layers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.output_size: there is no output network"):
        make("dots-rnn", output_depth=0, output_size=7)


@pytest.mark.parametrize("name", ["dts-rnn", "dots-rnn"])
def test_a_whole_transition_starts_as_recurrent_init_says(name: str) -> None:
    """Pascanu's program: every matrix of it sparse, with a largest singular value of 1."""
    config = ModelConfig(cell=name, recurrent_init="sparse", recurrent_connections=3)
    cell = make_cell(config, I, 20)
    blocks = [block for w in cell.recurrent_weights().values() for block in w.detach().split(20)]
    assert len(blocks) == 3  # W_1, S_2, W_2
    for block in blocks:
        assert bool(((block != 0).sum(dim=1) == 3).all())
        torch.testing.assert_close(torch.linalg.matrix_norm(block, 2), torch.tensor(1.0))


@pytest.mark.parametrize("coupled", [True, False])
def test_rhn(coupled: bool) -> None:
    cell = make("rhn", transition_depth=3, coupled_gates=coupled)
    w = weights(cell)
    x, (s,) = random_input(cell, T, B)
    found = outputs(cell, x, (s,))
    for t in range(T):
        for layer in (1, 2, 3):
            if layer == 1:
                v = x[t] @ w["W_xh"].T + s @ w["W_hh"].T + w["a"]
            else:
                v = s @ w[f"R_{layer}"].T + w[f"a_{layer}"]
            h, transform = torch.tanh(v[:, :H]), torch.sigmoid(v[:, H : 2 * H])
            carry = 1 - transform if coupled else torch.sigmoid(v[:, 2 * H :])
            s = h * transform + s * carry
        assert_equal(found[t], s)


def test_a_fresh_highway_hands_most_of_its_state_on() -> None:
    cell = make_cell(ModelConfig(cell="rhn", transition_depth=2), I, H).requires_grad_(False)
    for name in ("a", "a_2"):
        assert weights(cell)[name].tolist() == [0.0] * H + [-2.0] * H
    config = ModelConfig(cell="rhn", coupled_gates=False, transform_bias=-4.0, init="uniform")
    assert weights(make_cell(config, I, H))["a_3"][H:].tolist() == [-4.0] * H + [4.0] * H


def lstm(v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = v.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def test_fs_rnn() -> None:
    """Figure 1 of the paper: three fast cells, of which the second reads the slow one."""
    cell = make("fs-rnn", fast_layers=3, slow_size=5)
    w = weights(cell)
    x, state = random_input(cell, T, B)
    assert [part.shape[1] for part in state] == [H, H, 5, 5]
    found = outputs(cell, x, state)
    h, c, h_S, c_S = state
    for t in range(T):
        h, c = lstm(x[t] @ w["W_xh"].T + h @ w["W_hh"].T + w["a"], c)
        h_S, c_S = lstm(h @ w["U_S"].T + h_S @ w["W_S"].T + w["a_S"], c_S)
        h, c = lstm(h_S @ w["U_2"].T + h @ w["W_2"].T + w["a_2"], c)
        h, c = lstm(h @ w["W_3"].T + w["a_3"], c)
        assert_equal(found[t], h)


def test_fresh_lstm_cells_of_a_fast_slow_network_remember() -> None:
    cell = make_cell(ModelConfig(cell="fs-rnn", forget_bias=1.5, slow_size=3), I, H)
    for name, size in (("a", H), ("a_S", 3), ("a_2", H)):
        bias = weights(cell)[name]
        assert bias[size : 2 * size].tolist() == [1.5] * size
        assert float(bias.sum()) == 1.5 * size
    default = make_cell(ModelConfig(cell="fs-rnn"), I, H)
    assert default.state_sizes == (H, H, H // 2, H // 2)
