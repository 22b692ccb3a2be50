"""The published equations and the textbook's gradients, written out once more and compared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rnncli.models.language_model import LanguageModel
from rnncli.nn.recurrence import run
from rnncli.nn.stack import Run
from rnncli.nn.state import State
from rnncli.sections import ModelConfig
from tests.nn.cases import assert_equal, make, random_input, randomize

V, H, T = 5, 4, 8
DERIVATIVES = {
    "tanh": lambda h: 1 - h**2,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).to(h.dtype),
}
FUNCTIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}


@pytest.mark.parametrize("nonlinearity", FUNCTIONS)
def test_the_gradients_of_an_elman_network_are_the_textbooks_sums_over_time(
    nonlinearity: str,
) -> None:
    """h(t) = f(W_xh x(t) + W_hh h(t-1) + a), y(t) = softmax(W_hy h(t) + b), and
    L = - sum over t of log y(t)[d(t)]."""
    config = ModelConfig(
        cell="elman", nonlinearity=nonlinearity, layers=1, hidden_size=H, input="one-hot"
    )
    model = LanguageModel(config, V).double()
    randomize(model)
    cell = model.stack.layers[0]
    W_xh, W_hh, a = cell.W_xh.detach(), cell.W_hh.detach(), cell.a.detach()
    W_hy, b = model.output.matrix(None).detach(), model.output.b.detach()
    words = torch.tensor([0, 3, 1, 4, 4, 2, 0, 1, 3])
    one = torch.eye(V, dtype=torch.float64)
    x, d = [one[w] for w in words[:-1]], [one[w] for w in words[1:]]
    f, df = FUNCTIONS[nonlinearity], DERIVATIVES[nonlinearity]

    h_before = [torch.tensor([0.3, -0.5, 0.1, 0.8], dtype=torch.float64)]
    h: list[Tensor] = []
    for t in range(T):
        h.append(f(W_xh @ x[t] + W_hh @ h_before[t] + a))
        h_before.append(h[t])
    y = [torch.softmax(W_hy @ h[t] + b, 0) for t in range(T)]

    # delta(t): the derivative of L by f's argument at t.
    delta = [torch.zeros(H, dtype=torch.float64) for _ in range(T + 1)]
    for t in reversed(range(T)):
        delta[t] = (W_hy.T @ (y[t] - d[t]) + W_hh.T @ delta[t + 1]) * df(h[t])
    dW_hy = sum(torch.outer(y[t] - d[t], h[t]) for t in range(T))
    dW_hh = sum(torch.outer(delta[t], h_before[t]) for t in range(T))
    dW_xh = sum(torch.outer(delta[t], x[t]) for t in range(T))
    da = sum(delta[t] for t in range(T))
    db = sum(y[t] - d[t] for t in range(T))

    state = State(((h_before[0].unsqueeze(0),),))
    hidden, _ = model.hidden(words[:-1].unsqueeze(1), state, Run("auto", torch.float64))
    scale = torch.ones(T, dtype=torch.float64)
    loss = model.output.loss(hidden.squeeze(1), words[1:], scale, None, torch.float64)
    loss.backward()
    assert_equal(loss.detach(), -sum(torch.log(y[t] @ d[t]) for t in range(T)))
    assert_equal(model.output.W_hy.grad, dW_hy)
    assert_equal(cell.W_hh.grad, dW_hh)
    assert_equal(cell.W_xh.grad, dW_xh)
    assert_equal(cell.a.grad, da)
    assert_equal(model.output.b.grad, db)


def test_lstm() -> None:
    cell = make("lstm")
    x, (h, c) = random_input(cell, T=6, B=2)
    y, _ = run(cell, x, (h, c), cell.recurrent_weights(), engine="auto", dtype=torch.float64)
    W_i, W_f, W_g, W_o = cell.W_xh.chunk(4)
    U_i, U_f, U_g, U_o = cell.W_hh.chunk(4)
    b_i, b_f, b_g, b_o = cell.a.chunk(4)
    for t in range(6):
        i = torch.sigmoid(x[t] @ W_i.T + h @ U_i.T + b_i)
        f = torch.sigmoid(x[t] @ W_f.T + h @ U_f.T + b_f)
        g = torch.tanh(x[t] @ W_g.T + h @ U_g.T + b_g)
        o = torch.sigmoid(x[t] @ W_o.T + h @ U_o.T + b_o)
        c = f * c + i * g
        h = o * torch.tanh(c)
        assert_equal(y[t], h)


def cho(cell: torch.nn.Module, x: Tensor, h: Tensor, *, reset_first: bool) -> list[Tensor]:
    """h(1) ... h(T) of Cho et al. 2014, eqs. 5 to 8, or with U h reset after the product."""
    W_r, W_z, W = cell.W_xh.chunk(3)
    U_r, U_z = cell.W_hh.chunk(2)
    b_r, b_z, b = cell.a.chunk(3)
    states = []
    for x_t in x:
        r = torch.sigmoid(x_t @ W_r.T + h @ U_r.T + b_r)
        z = torch.sigmoid(x_t @ W_z.T + h @ U_z.T + b_z)
        recurrent = (r * h) @ cell.U.T if reset_first else r * (h @ cell.U.T)
        candidate = torch.tanh(x_t @ W.T + recurrent + b)
        h = z * h + (1 - z) * candidate
        states.append(h)
    return states


def test_gru_of_cho_2014_resets_the_state_before_the_product() -> None:
    cell = make("gru-cho2014")
    x, (h,) = random_input(cell, T=6, B=2)
    y, _ = run(cell, x, (h,), cell.recurrent_weights(), engine="auto", dtype=torch.float64)
    assert_equal(y, torch.stack(cho(cell, x, h, reset_first=True)))


@pytest.mark.parametrize(("reset_bias", "same"), [(0.0, False), (40.0, True), (-40.0, True)])
def test_the_two_forms_of_gru_differ_unless_the_reset_gate_saturates(
    reset_bias: float, same: bool
) -> None:
    """U (r * h) = r * (U h) for every h only if r is all ones or all zeros."""
    before, after = make("gru-cho2014"), make("gru")
    size = before.hidden_size
    with torch.no_grad():
        before.a[:size] += reset_bias
        after.W_xh.copy_(before.W_xh)
        after.W_hh.copy_(torch.cat([before.W_hh, before.U]))
        after.a.copy_(before.a)
        after.a_n.zero_()
    x, (h,) = random_input(before, T=6, B=2)
    y_before, y_after = (
        run(cell, x, (h,), cell.recurrent_weights(), engine="auto", dtype=torch.float64)[0]
        for cell in (before, after)
    )
    assert_equal(y_after, torch.stack(cho(before, x, h, reset_first=False)))
    gap = float((y_before - y_after).detach().abs().max())
    assert gap < 1e-12 if same else gap > 1e-2


@pytest.mark.parametrize(
    ("kind", "blocks"), [("elman-tanh", 1), ("lstm", 4), ("gru", 3), ("gru-cho2014", 3)]
)
def test_fresh_weights(kind: str, blocks: int) -> None:
    """Recurrent matrices orthogonal gate by gate, inputs of variance 1/I, an LSTM remembers."""
    from rnncli.nn.cells import make_cell
    from tests.nn.cases import cell_config

    torch.manual_seed(0)
    cell = make_cell(cell_config(kind), 400, 20).requires_grad_(False)
    recurrent = torch.cat(list(cell.recurrent_weights().values())).split(20)
    assert len(recurrent) == blocks
    for block in recurrent:
        torch.testing.assert_close(block @ block.T, torch.eye(20))
    assert float(cell.W_xh.std()) == pytest.approx(400**-0.5, rel=0.05)
    forget = cell.a[20:40]
    assert float(cell.a.sum()) == (20 if kind == "lstm" else 0)
    assert kind != "lstm" or bool((forget == 1).all())
    uniform = make_cell(cell_config(kind, init="uniform", init_scale=0.3), 50, 20).requires_grad_(
        False
    )
    values = torch.cat([p.flatten() for p in uniform.parameters()])
    assert 0.29 < float(values.abs().max()) <= 0.3
    assert float(values.std()) == pytest.approx(0.3 / 3**0.5, rel=0.05)
    normal = make_cell(cell_config(kind, init="normal", init_scale=0.3), 50, 20).requires_grad_(
        False
    )
    assert float(normal.W_hh.std()) == pytest.approx(0.3, rel=0.1)
