"""The regulariser of Pascanu et al. 2013, sec. 3.3, against its formulas written out once more."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.models.language_model import LanguageModel
from rnncli.nn.attention import Attention
from rnncli.nn.attentive_cell import AttentiveCell
from rnncli.nn.cells.base import Cell
from rnncli.nn.omega import _Backward, omega, require_omega, run_with_omega
from rnncli.nn.recurrence import run
from rnncli.nn.recurrence.trace import run_traced
from rnncli.nn.stack import Run, Stack
from rnncli.sections import ModelConfig, RegularizationConfig
from tests.nn.cases import KINDS, assert_equal, make, random_input, randomize

T, B = 6, 3
Weights = dict[str, Tensor]
Back = Callable[[Weights, Tensor, int], Tensor]
SLOPES = {
    "tanh": lambda h: 1 - h**2,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).to(h.dtype),
}


def direction(y: Tensor) -> Tensor:
    """What the loss of these tests is: sum of y times this, but for two steps."""
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    weight[1] = weight[3] = 0.0
    return weight


def written_out(back: Back, weights: Weights, dy: Tensor, sizes: int) -> tuple[Callable, Tensor]:
    """Omega as a function of the matrices alone (eqs. 9 and 10), and its value.

    ``back(weights, g, k)``: (dE/ds(k+1)) ds(k+1)/ds(k), with everything but ``weights`` held.
    """
    g = [torch.zeros(B, sizes, dtype=torch.float64) for _ in range(T + 1)]
    for k in range(T, 0, -1):
        if k < T:
            g[k] = back(weights, g[k + 1], k)
        g[k][:, : dy.shape[2]] += dy[k - 1]

    def value(matrices: Weights) -> Tensor:
        terms = [
            (back(matrices, g[k + 1], k).norm(dim=1) / g[k + 1].norm(dim=1) - 1) ** 2
            for k in range(1, T)
        ]
        return torch.stack(terms).mean()

    return value, value(weights)


def elman_back(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> Back:
    """For h(k+1) = f(W_hh h(k) + ...): (g * f'(k+1)) W_hh."""
    h = [state[0]]
    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}[cell.nonlinearity]
    for t in range(T):
        h.append(f(x[t] @ cell.W_xh.T + cell.a + h[t] @ cell.W_hh.T))
    slopes = [SLOPES[cell.nonlinearity](v).detach() for v in h]
    return lambda weights, g, k: (g * slopes[k + 1]) @ weights["W_hh"]


def lstm_back(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> Back:
    (h, c), gates, cells = state, [], [state[1]]
    for t in range(T):
        i, f, g, o = (x[t] @ cell.W_xh.T + cell.a + h @ cell.W_hh.T).chunk(4, 1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        h = o * torch.tanh(c)
        gates.append([v.detach() for v in (i, f, g, o)])
        cells.append(c.detach())

    def back(weights: Weights, d: Tensor, k: int) -> Tensor:
        dh, dc = d.chunk(2, 1)
        i, f, g, o = gates[k]
        tanh_c = torch.tanh(cells[k + 1])
        dc = dc + dh * o * (1 - tanh_c**2)
        parts = (dc * g * i * (1 - i), dc * cells[k] * f * (1 - f), dc * i * (1 - g**2),
                 dh * tanh_c * o * (1 - o))  # fmt: skip
        return torch.cat([torch.cat(parts, 1) @ weights["W_hh"], dc * f], 1)

    return back


def gru_cho_back(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> Back:
    h, before = state[0], []
    for t in range(T):
        p = x[t] @ cell.W_xh.T + cell.a
        r, z = torch.sigmoid(p[:, :8] + h @ cell.W_hh.T).chunk(2, 1)
        n = torch.tanh(p[:, 8:] + (r * h) @ cell.U.T)
        before.append([v.detach() for v in (h, r, z, n)])
        h = z * h + (1 - z) * n

    def back(weights: Weights, g: Tensor, k: int) -> Tensor:
        h, r, z, n = before[k]
        q = (g * (1 - z) * (1 - n**2)) @ weights["U"]
        rows = torch.cat([q * h * r * (1 - r), g * (h - n) * z * (1 - z)], 1)
        return g * z + q * r + rows @ weights["W_hh"]

    return back


FORMULAS = {
    "elman-tanh": elman_back,
    "elman-sigmoid": elman_back,
    "elman-relu": elman_back,
    "lstm": lstm_back,
    "gru-cho2014": gru_cho_back,
}


def weight_gradients(kind: str, factor: float, engine: str = "deferred") -> Weights:
    cell = make(kind)
    x, state = random_input(cell, T, B)
    weights = cell.step_weights()
    if factor:
        y, _ = run_with_omega(cell, x, state, weights, factor, engine=engine, dtype=torch.float64)
    else:
        y, _ = run(cell, x, state, weights, engine="reference", dtype=torch.float64)
    (y * direction(y)).sum().backward()
    found = {name: p.grad for name, p in cell.named_parameters() if p.grad is not None}
    return {"x": x.grad, **found}


@pytest.mark.parametrize("engine", ["deferred", "reference"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_the_derivative_is_that_of_the_papers_formula(kind: str, engine: str) -> None:
    plain, with_omega = weight_gradients(kind, 0.0), weight_gradients(kind, 0.7, engine)
    cell = make(kind)
    x, state = random_input(cell, T, B)
    y, _ = run(cell, x, state, cell.step_weights(), engine="reference", dtype=torch.float64)
    weights = {name: w.detach().clone() for name, w in cell.step_weights().items()}
    back = FORMULAS[kind](cell, x, state)
    value, _ = written_out(back, weights, direction(y), sum(cell.state_sizes))
    for name, weight in weights.items():
        leaf = weight.clone().requires_grad_()
        (expected,) = torch.autograd.grad(value({**weights, name: leaf}), leaf)
        assert expected.abs().max() > 1e-4
        assert_equal(with_omega[name] - plain[name], 0.7 * expected)
        # The same by finite differences, for a few elements.
        for place in [(0, 0), (1, 2), (3, 1)]:
            step = torch.zeros_like(weight)
            step[place] = 1e-6
            up, down = (value({**weights, name: weight + s}) for s in (step, -step))
            assert float((up - down) / 2e-6) == pytest.approx(float(expected[place]), abs=1e-7)


@pytest.mark.parametrize("kind", [k for k in KINDS if make(k).step_weights()])
def test_nothing_else_changes(kind: str) -> None:
    """Outputs, and the gradients of inputs and of what is no matrix of the state; both engines."""
    plain, found = weight_gradients(kind, 0.0), weight_gradients(kind, 0.5)
    other = weight_gradients(kind, 0.5, "reference")
    matrices = make(kind).step_weights()
    assert any(not torch.equal(plain[name], found[name]) for name in matrices)
    for name, gradient in plain.items():
        assert_equal(found[name], other[name], 1e-9)
        if name not in matrices:
            assert_equal(found[name], gradient)


@pytest.mark.parametrize("look_up", ["before", "feeding", "between"])
def test_what_a_decoder_reads_again_and_again_is_no_state(look_up: str) -> None:
    """Omega of a cell with attention, from its Jacobians by everything but the annotations."""
    H, S = 4, 5
    inner, second = make("gru"), make("gru", inputs=3)
    attention = Attention("additive", H, 3)
    cell = AttentiveCell(inner, attention, look_up, 3, second if look_up == "between" else None)
    randomize(cell.double())
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    memory = draw(B, S, 3)
    keys = attention.keys(memory)
    state = (*cell.first_state((draw(B, H),), memory), memory, keys.detach())
    x = draw(T, B, cell.input_size)
    weights = cell.step_weights()
    y, _ = run_with_omega(cell, x, state, weights, 0.5, engine="deferred", dtype=torch.float64)
    (y * direction(y)).sum().backward()
    found = {name: w.grad.clone() for name, w in weights.items()}
    cell.zero_grad()
    y, _, trace = run_traced(cell, x, state, weights, engine="reference", dtype=torch.float64)
    handed = [part for state in trace.states[1:] for part in state[:2]]
    loss = (y * direction(y)).sum()
    errors = torch.autograd.grad(loss, handed, retain_graph=True, allow_unused=True)
    errors = [torch.zeros_like(h) if e is None else e for e, h in zip(errors, handed, strict=True)]
    terms = []
    for k in range(1, T):
        g = errors[2 * k : 2 * k + 2]

        def after(*parts: Tensor, k: int = k) -> tuple[Tensor, ...]:
            whole = (*parts, *trace.states[k][2:])
            product = lambda name, v: v @ weights[name].T  # noqa: E731
            return cell.step(trace.projected[k].detach(), whole, product)[:2]

        before = tuple(part.detach() for part in trace.states[k][:2])
        _, back = torch.autograd.functional.vjp(after, before, tuple(g))
        terms.append((torch.cat(back, 1).norm(dim=1) / torch.cat(g, 1).norm(dim=1) - 1) ** 2)
    N = T - 1
    stacked = [
        torch.stack([state[p].detach() for state in trace.states[1:T]])
        for p in range(len(trace.states[0]))
    ]
    arrived = [torch.stack(errors[2 + p :: 2]) for p in range(2)]
    projected = trace.projected[1:].detach()
    value, _ = omega(cell, {n: w.detach() for n, w in weights.items()}, [], projected, stacked,
                     arrived)  # fmt: skip
    assert len(stacked[0]) == len(arrived[0]) == N
    assert float(value) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-9)
    loss.backward()
    assert any((found[name] - w.grad).abs().max() > 1e-6 for name, w in weights.items())
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())


def test_a_descent_on_omega_alone_keeps_the_norm_of_errors() -> None:
    """From a matrix that would shrink them by half at every step."""
    cell = make("elman-tanh", hidden=8)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    W = 0.5 * torch.linalg.qr(draw(8, 8))[0]
    before, projected, errors = 0.1 * draw(9, 20, 8), 0.1 * draw(9, 20, 8), draw(9, 20, 8)
    values = []
    for _ in range(200):
        value, (gradient,) = omega(cell, {"W_hh": W}, ["W_hh"], projected, [before], [errors])
        values.append(float(value))
        W = W - 0.5 * gradient
    assert values[0] == pytest.approx(0.25, abs=0.02)
    assert values[-1] < 0.01
    assert torch.linalg.svdvals(W).mean() == pytest.approx(1.0, abs=0.1)


def test_steps_without_an_error_do_not_count() -> None:
    cell = make("elman-tanh")
    before = torch.zeros(4, 2, 4, dtype=torch.float64)
    errors = torch.zeros_like(before)
    value, (gradient,) = omega(
        cell, cell.step_weights(), ["W_hh"], before, [before], [errors.clone()]
    )
    assert float(value) == 0.0
    assert bool((gradient == 0).all())
    errors[2, 1] = 1.0
    value, _ = omega(cell, cell.step_weights(), ["W_hh"], before, [before], [errors])
    row = torch.ones(4, dtype=torch.float64) @ cell.W_hh.detach()
    assert float(value) == pytest.approx(float((row.norm() / 2 - 1) ** 2))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_every_layer_of_a_stack_has_it_in_training_alone(direction: str) -> None:
    config = ModelConfig(cell="gru", layers=2, hidden_size=4, direction=direction)
    stack = Stack(config, 3).double()
    randomize(stack)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    run_as = Run("auto", torch.float64)
    results = []
    for rates in (RegularizationConfig(), RegularizationConfig(omega=0.5), None):
        stack.zero_grad()
        y, _ = stack(x, stack.start(2), run_as, rates)
        y.pow(2).sum().backward()
        results.append([cell.W_hh.grad.clone() for cell in stack.layers])
    for plain, with_omega, evaluated in zip(*results, strict=True):
        assert_equal(plain, evaluated)
        assert (plain - with_omega).abs().max() > 1e-4
    with torch.no_grad():
        stack(x, stack.start(2), run_as, RegularizationConfig(omega=0.5))


def test_connections_that_are_dropped_get_no_derivative() -> None:
    cell = make("elman-tanh")
    x, state = random_input(cell, T, B)
    mask = torch.ones_like(cell.W_hh)
    mask[0], mask[2, 3] = 0.0, 0.0
    y, _ = run_with_omega(
        cell, x, state, {"W_hh": cell.W_hh * mask}, 1.0, engine="deferred", dtype=torch.float64
    )
    y.sum().backward()
    assert bool((cell.W_hh.grad[mask == 0] == 0).all())
    assert bool((cell.W_hh.grad[mask == 1] != 0).all())


def test_a_run_leaves_nothing_behind() -> None:
    weight_gradients("lstm", 1.0)
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) is _Backward]


def test_where_it_has_nothing_to_act_on() -> None:
    rates = RegularizationConfig(omega=1.0)
    sizes = {"layers": 2, "hidden_size": 4, "embedding_size": 3}
    with pytest.raises(UsageError, match=r"regularization.omega: MinGRU has no recurrent matrix"):
        require_omega(rates, LanguageModel(ModelConfig(cell="mingru", **sizes), 5))
    with pytest.raises(UsageError, match="that is learned"):
        require_omega(rates, LanguageModel(ModelConfig(cell="echo-state", **sizes), 5))
    require_omega(rates, LanguageModel(ModelConfig(cell="mingru, lstm", **sizes), 5))
    require_omega(RegularizationConfig(), LanguageModel(ModelConfig(cell="mingru", **sizes), 5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.engine": "vendor"}, "the engine 'vendor' does not keep every step's state"),
        ({"model.zoneout": 0.1}, "zoneout draws anew"),
        ({"training.accumulate": 2}, r"weighs pieces .*use training\.accumulate = 1"),
        ({"regularization.omega": -1.0}, "regularization.omega: -1.0 is out of range"),
    ],
)
def test_settings_that_do_not_go_with_it(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config().with_values({"regularization.omega": 1.0, **values})
