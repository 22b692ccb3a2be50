"""Layer normalisation (Ba et al. 2016) of the cells that have no equations of their own for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells import make_cell
from rnncli.sections import ModelConfig
from tests.nn.cases import H, I, assert_equal, make, random_input
from tests.nn.test_equations_gated import B, T, given, layer_norm

sigmoid, tanh = torch.sigmoid, torch.tanh


def grouped(v: Tensor, gain: Tensor, *sizes: int) -> Tensor:
    """Each group of units normalised by itself."""
    pairs = zip(v.split(sizes, 1), gain.split(sizes), strict=True)
    return torch.cat([layer_norm(part, g) for part, g in pairs], 1)


def test_indrnn() -> None:
    """h(t) = relu(LN(W_xh x) + u * h + a): what is no matrix is not normalised."""
    p, xs, (h,), found = given("indrnn-layer-norm")
    for x, y in zip(xs, found, strict=True):
        u = p["u"].clamp(-1, 1)
        h = F.relu(layer_norm(x @ p["W_xh"].T, p["norms.W_xh.g"]) + p["a"] + u * h)
        assert_equal(y, h)


def test_a_leaky_reservoir_normalises_its_sum_and_learns_no_gain() -> None:
    p, xs, (h,), found = given("echo-state-layer-norm")
    for x, y in zip(xs, found, strict=True):
        total = layer_norm(x @ p["W_xh"].T + h @ p["W_hh"].T, p["norm.g"], p["a"])
        h = 0.7 * h + 0.3 * tanh(total)
        assert_equal(y, h)
    cell = make_cell(ModelConfig(cell="echo-state", layer_norm=True), I, H)
    assert not any(weight.requires_grad for weight in cell.parameters())
    learned = ModelConfig(cell="echo-state", layer_norm=True, learned=("norm.g",))
    names = [n for n, p in make_cell(learned, I, H).named_parameters() if p.requires_grad]
    assert names == ["norm.g"]


def test_every_layer_of_a_deep_transition_normalises_its_own_sums() -> None:
    p, xs, (h,), found = given("dots-rnn-layer-norm")
    outputs = make("dots-rnn-layer-norm").outputs
    assert isinstance(outputs, torch.nn.Module)
    for x, y in zip(xs, found, strict=True):
        from_x = grouped(x @ p["W_xh"].T, p["norms.W_xh.g"], H, H) + p["a"]
        from_h = grouped(h @ p["W_hh"].T, p["norms.W_hh.g"], H, H)
        z = sigmoid(from_x[:, :H] + from_h[:, :H])
        above = layer_norm(z @ p["W_2"].T, p["norms.W_2.g"])
        h = sigmoid(above + from_x[:, H:] + from_h[:, H:])
        assert_equal(y, sigmoid(h @ p["outputs.0.W"].T + p["outputs.0.a"]))


def test_rhn() -> None:
    p, xs, (s,), found = given("rhn-layer-norm")
    sizes = (H, 2 * H)
    for x, y in zip(xs, found, strict=True):
        for layer in range(1, 6):
            name, bias = ("W_hh", "a") if layer == 1 else (f"R_{layer}", f"a_{layer}")
            v = grouped(s @ p[name].T, p[f"norms.{name}.g"], *sizes) + p[bias]
            if layer == 1:
                v = v + grouped(x @ p["W_xh"].T, p["norms.W_xh.g"], *sizes)
            h, t, c = v.chunk(3, dim=1)
            s = tanh(h) * sigmoid(t) + s * sigmoid(c)
        assert_equal(y, s)


def test_fs_rnn() -> None:
    """As the authors' program: each gate of the whole sum, and c where h sees it."""
    p, xs, (h, c, h_s, c_s), found = given("fs-rnn-layer-norm")

    def lstm(name: str, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        n = c.shape[1]
        total = grouped(v, p[f"norms.{name}.gates.g"], n, n, n, n) + p[name]
        i, f, g, o = total.chunk(4, dim=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        exposed = layer_norm(c, p[f"norms.{name}.cell.g"], p[f"norms.{name}.b"])
        return sigmoid(o) * tanh(exposed), c

    for x, y in zip(xs, found, strict=True):
        h, c = lstm("a", x @ p["W_xh"].T + h @ p["W_hh"].T, c)
        h_s, c_s = lstm("a_S", h @ p["U_S"].T + h_s @ p["W_S"].T, c_s)
        h, c = lstm("a_2", h_s @ p["U_2"].T + h @ p["W_2"].T, c)
        h, c = lstm("a_3", h @ p["W_3"].T, c)
        assert_equal(y, h)


def test_sru_normalises_every_row_of_its_one_product() -> None:
    p, xs, (c,), found = given("sru-layer-norm")
    for x, y in zip(xs, found, strict=True):
        rows = grouped(x @ p["W_xh"].T, p["norms.W_xh.g"], H, H, H, H) + p["a"]
        candidate, f, r, past = rows.chunk(4, dim=1)
        f, r = sigmoid(f), sigmoid(r)
        c = f * c + (1 - f) * candidate
        assert_equal(y, r * c + (1 - r) * past)


def test_a_qrnn_normalises_what_its_window_gives() -> None:
    cell = make("qrnn-layer-norm")
    p = {name: weight.detach() for name, weight in cell.named_parameters()}
    x, (c, before) = random_input(cell, T, B)
    _, _, _, found = given("qrnn-layer-norm")
    for now, y in zip(x.detach(), found, strict=True):
        window = torch.cat([before, now], 1).detach()
        rows = grouped(window @ p["W_xh"].T, p["norms.W_xh.g"], H, H, H) + p["a"]
        z, f, o = rows.chunk(3, dim=1)
        f = sigmoid(f)
        c = f * c.detach() + (1 - f) * tanh(z)
        assert_equal(y, sigmoid(o) * c)
        before = now


@pytest.mark.parametrize("name", ["lstm", "gru", "rhn", "fs-rnn", "mingru", "dt-rnn"])
def test_a_normalised_cell_starts_with_what_its_cell_starts_with(name: str) -> None:
    torch.manual_seed(3)
    plain = make_cell(ModelConfig(cell=name), I, H)
    torch.manual_seed(3)
    normalised = make_cell(ModelConfig(cell=name, layer_norm=True), I, H)
    weights = dict(normalised.named_parameters())
    for key, weight in plain.named_parameters():
        assert torch.equal(weights[key], weight)
