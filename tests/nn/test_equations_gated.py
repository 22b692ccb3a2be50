"""The published equations of gated cells and of Elman's kin, written out once more."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence import run
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig
from tests.nn.cases import H, I, assert_equal, make, random_input, randomize

T, B = 6, 2
sigmoid, tanh = torch.sigmoid, torch.tanh


def outputs(cell: Cell, x: Tensor, state: CellState) -> Tensor:
    """h(1) ... h(T): (T, B, output_size)."""
    y, _ = run(cell, x, state, cell.step_weights(), engine="auto", dtype=torch.float64)
    return y.detach()


def given(
    kind: str, batch: int = B
) -> tuple[dict[str, Tensor], Tensor, list[Tensor], list[Tensor]]:
    """The parameters of a cell, an input (T, B, I), a state, and the cell's outputs on them."""
    cell = make(kind)
    x, state = random_input(cell, T, batch)
    parameters = {name: p.detach() for name, p in cell.named_parameters()}
    found = list(outputs(cell, x, state))
    return parameters, x.detach(), [part.detach() for part in state], found


def test_lstm_with_peepholes_is_that_of_graves() -> None:
    """Graves 2013, eqs. 7 to 11, with the diagonal matrices from cell to gates as matrices."""
    p, xs, (h, c), found = given("lstm-peephole")
    W_xi, W_xf, W_xc, W_xo = p["W_xh"].chunk(4)
    W_hi, W_hf, W_hc, W_ho = p["W_hh"].chunk(4)
    b_i, b_f, b_c, b_o = p["a"].chunk(4)
    W_ci, W_cf, W_co = (torch.diag(p[name]) for name in ("W_ci", "W_cf", "W_co"))
    for x, y in zip(xs, found, strict=True):
        i = sigmoid(x @ W_xi.T + h @ W_hi.T + c @ W_ci.T + b_i)
        f = sigmoid(x @ W_xf.T + h @ W_hf.T + c @ W_cf.T + b_f)
        c = f * c + i * tanh(x @ W_xc.T + h @ W_hc.T + b_c)
        o = sigmoid(x @ W_xo.T + h @ W_ho.T + c @ W_co.T + b_o)
        h = o * tanh(c)
        assert_equal(y, h)


def test_coupled_gates_are_those_of_greff() -> None:
    """CIFG: i = 1 - f, and three gates' weights in all."""
    p, xs, (h, c), found = given("lstm-coupled")
    assert {name: tuple(w.shape) for name, w in p.items()} == {
        "W_xh": (3 * H, I), "W_hh": (3 * H, H), "a": (3 * H,),
    }  # fmt: skip
    W_f, W_z, W_o = p["W_xh"].chunk(3)
    R_f, R_z, R_o = p["W_hh"].chunk(3)
    b_f, b_z, b_o = p["a"].chunk(3)
    for x, y in zip(xs, found, strict=True):
        f = sigmoid(x @ W_f.T + h @ R_f.T + b_f)
        c = (1 - f) * tanh(x @ W_z.T + h @ R_z.T + b_z) + f * c
        h = tanh(c) * sigmoid(x @ W_o.T + h @ R_o.T + b_o)
        assert_equal(y, h)


def test_projection_is_that_of_sak() -> None:
    """Sak et al. 2014: the recurrent projection r(t) = W_rm m(t) goes up and back."""
    p, xs, (r, c), found = given("lstm-projection")
    assert p["W_hh"].shape == (4 * H, 3) and p["W_rm"].shape == (3, H)
    assert r.shape == (B, 3) and c.shape == (B, H) and found[0].shape == (B, 3)
    for x, y in zip(xs, found, strict=True):
        i, f, g, o = (x @ p["W_xh"].T + r @ p["W_hh"].T + p["a"]).chunk(4, dim=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        m = sigmoid(o) * tanh(c)
        r = m @ p["W_rm"].T
        assert_equal(y, r)


def layer_norm(z: Tensor, gain: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Ba et al. 2016, eqs. 3 and 4, over the units of each row."""
    mu = z.mean(1, keepdim=True)
    sigma = ((z - mu) ** 2).mean(1, keepdim=True).add(1e-5).sqrt()
    return gain * (z - mu) / sigma + bias


def test_layer_normalised_elman() -> None:
    """Ba et al. 2016, eq. 4: the sum of both products is normalised."""
    p, xs, (h,), found = given("elman-layer-norm")
    for x, y in zip(xs, found, strict=True):
        h = tanh(layer_norm(h @ p["W_hh"].T + x @ p["W_xh"].T, p["norm.g"], p["a"]))
        assert_equal(y, h)


def test_layer_normalised_lstm() -> None:
    """Ba et al. 2016, eqs. 20 to 22; b, beta_1 and beta_2 are one sum."""
    p, xs, (h, c), found = given("lstm-layer-norm")
    for x, y in zip(xs, found, strict=True):
        gates = layer_norm(h @ p["W_hh"].T, p["norm_h.g"]) + layer_norm(
            x @ p["W_xh"].T, p["norm_x.g"]
        )
        i, f, g, o = (gates + p["a"]).chunk(4, dim=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(layer_norm(c, p["norm_c.g"], p["b_c"]))
        assert_equal(y, h)


@pytest.mark.parametrize("kind", ["gru-layer-norm", "gru-cho2014-layer-norm"])
def test_layer_normalised_gru(kind: str) -> None:
    """Ba et al. 2016, supplementary material; here z is the share that h(t-1) keeps."""
    p, xs, (h,), found = given(kind)
    g_x, g_h, a = p["norms.W_xh.g"], p["norms.W_hh.g"], p["a"]
    W, W_n = p["W_xh"].split((2 * H, H))
    U = p["W_hh"][: 2 * H]
    for x, y in zip(xs, found, strict=True):
        gates = layer_norm(h @ U.T, g_h[: 2 * H]) + layer_norm(x @ W.T, g_x[: 2 * H])
        r, z = sigmoid(gates + a[: 2 * H]).chunk(2, dim=1)
        if kind == "gru-layer-norm":
            recurrent = r * layer_norm(h @ p["W_hh"][2 * H :].T, g_h[2 * H :], p["a_n"])
        else:
            recurrent = layer_norm((r * h) @ p["U"].T, p["norms.U.g"])
        candidate = tanh(layer_norm(x @ W_n.T, g_x[2 * H :], a[2 * H :]) + recurrent)
        h = (1 - z) * candidate + z * h
        assert_equal(y, h)


def test_deep_transition_of_an_lstm_is_a_chain_of_torchs_cells() -> None:
    p, xs, state, found = given("lstm-deep")
    first = torch_cell(nn.LSTMCell(I, H), p, "cell.")
    further = [torch_cell(nn.LSTMCell(I, H), p, f"further.{k}.") for k in range(2)]
    h, c = state
    for x, y in zip(xs, found, strict=True):
        h, c = first(x, (h, c))
        for cell in further:
            h, c = cell(torch.zeros_like(x), (h, c))
        assert_equal(y, h.detach())


def test_deep_transition_of_a_gru_is_a_chain_of_torchs_cells() -> None:
    p, xs, (h,), found = given("gru-deep")
    first = torch_cell(nn.GRUCell(I, H), p, "cell.")
    further = [torch_cell(nn.GRUCell(I, H), p, f"further.{k}.") for k in range(2)]
    for x, y in zip(xs, found, strict=True):
        h = first(x, h)
        for cell in further:
            h = cell(torch.zeros_like(x), h)
        assert_equal(y, h.detach())


def torch_cell(cell: nn.RNNCellBase, p: dict[str, Tensor], prefix: str) -> nn.RNNCellBase:
    """``cell`` with the weights whose names begin with ``prefix``, any where W_xh is not there."""
    cell = cell.double()
    with torch.no_grad():
        if f"{prefix}W_xh" in p:
            cell.weight_ih.copy_(p[f"{prefix}W_xh"])
        cell.weight_hh.copy_(p[f"{prefix}W_hh"])
        cell.bias_ih.copy_(p[f"{prefix}a"])
        cell.bias_hh.zero_()
        if f"{prefix}a_n" in p:
            cell.bias_hh[2 * H :] = p[f"{prefix}a_n"]
    return cell


@pytest.mark.parametrize("kind", ["mogrifier", "mogrifier-low-rank"])
def test_mogrifier_is_that_of_melis(kind: str) -> None:
    """Melis et al. 2020, eqs. 1 and 2, by their indices: x^-1 = x, h^0 = h(t-1)."""
    p, xs, (h, c), found = given(kind)
    low_rank = kind == "mogrifier-low-rank"
    rounds = 3 if low_rank else 5

    def matrix(name: str) -> Tensor:
        return p[f"{name}_left"] @ p[f"{name}_right"] if low_rank else p[name]

    for x, y in zip(xs, found, strict=True):
        x_, h_ = {-1: x}, {0: h}
        for i in range(1, rounds + 1):
            if i % 2 == 1:
                x_[i] = 2 * sigmoid(h_[i - 1] @ matrix(f"Q{i}").T) * x_[i - 2]
            else:
                h_[i] = 2 * sigmoid(x_[i - 1] @ matrix(f"R{i}").T) * h_[i - 2]
        up_x, up_h = x_[max(x_)], h_[max(h_)]
        i, f, j, o = (up_x @ p["W_xh"].T + up_h @ p["W_hh"].T + p["a"]).chunk(4, dim=1)
        i, f = sigmoid(i), sigmoid(f)
        if low_rank:  # coupled: the input gate is capped
            i = torch.where(i < 1 - f, i, 1 - f)
        c = f * c + i * tanh(j)
        h = sigmoid(o) * tanh(c)
        assert_equal(y, h)


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_indrnn_is_that_of_li_unit_by_unit(nonlinearity: str) -> None:
    """Li et al. 2018; |u| beyond 1 counts as 1."""
    cell = make_cell(ModelConfig(cell="indrnn", nonlinearity=nonlinearity), I, H).double()
    randomize(cell)
    with torch.no_grad():
        cell.u.copy_(torch.tensor([0.5, -0.9, 1.7, -2.0], dtype=torch.float64))
    xs, (h,) = random_input(cell, T, 1)
    y = outputs(cell, xs, (h,))
    f = {"relu": lambda v: max(v, 0.0), "tanh": math.tanh}
    for n, u in enumerate([0.5, -0.9, 1.0, -1.0]):
        unit, w, b = h[0, n].item(), cell.W_xh[n].tolist(), cell.a[n].item()
        for t in range(T):
            drive = sum(i * j for i, j in zip(w, xs[t, 0].tolist(), strict=True))
            unit = f[nonlinearity](drive + u * unit + b)
            assert y[t, 0, n].item() == pytest.approx(unit, abs=1e-10)


@pytest.mark.parametrize(
    ("kind", "heads", "gate"),
    [("slstm", 1, sigmoid), ("slstm-heads", 2, sigmoid), ("slstm-exp", 1, torch.exp)],
)
def test_slstm_is_that_of_beck_without_its_stabiliser(
    kind: str, heads: int, gate: Callable[[Tensor], Tensor]
) -> None:
    """Beck et al. 2024, eqs. 8 to 14, with plain exponentials and block diagonal matrices; f by
    either ``gate`` that eq. 13 has."""
    p, xs, (h, c, n, m), found = given(kind)
    c, n = c * m.exp(), n * m.exp()
    R = [
        torch.block_diag(*matrix.split(H // heads)) for matrix in p["W_hh"].split(H)
    ]  # of i, f, z, o
    for x, y in zip(xs, found, strict=True):
        W = x @ p["W_xh"].T + p["a"]
        i, f, z, o = (w + h @ r.T for w, r in zip(W.chunk(4, dim=1), R, strict=True))
        i, f = torch.exp(i), gate(f)
        c = f * c + i * tanh(z)
        n = f * n + i
        h = sigmoid(o) * c / n
        assert_equal(y, h)


def test_echo_state_is_that_of_jaeger() -> None:
    p, xs, (h,), found = given("echo-state")
    for x, y in zip(xs, found, strict=True):
        h = 0.7 * h + 0.3 * tanh(x @ p["W_xh"].T + h @ p["W_hh"].T + p["a"])
        assert_equal(y, h)


def test_irnn_starts_by_adding_up_what_it_reads() -> None:
    """Le et al. 2015, sec. 3: identity, zero bias, and inputs of deviation 0.001."""
    torch.manual_seed(0)
    cell = make_cell(ModelConfig(cell="irnn"), 100, 50).double()
    assert torch.equal(cell.W_hh.detach(), torch.eye(50, dtype=torch.float64))
    assert not cell.a.any()
    assert float(cell.W_xh.detach().std()) == pytest.approx(0.001, rel=0.05)
    x = torch.rand(T, B, 100, dtype=torch.float64)
    with torch.no_grad():
        cell.W_xh.abs_()
    drives = (x @ cell.W_xh.T).detach()
    assert_equal(outputs(cell, x, cell.zero_state(B)), drives.cumsum(0))
