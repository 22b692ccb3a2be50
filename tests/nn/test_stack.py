"""Layers over time: what is carried, what is cut, what depends on what."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.nn.stack import Run, Stack
from rnncli.nn.state import State
from rnncli.sections import ModelConfig, RegularizationConfig
from tests.nn.cases import KINDS, H, I, assert_equal, cell_config, parts_read, randomize

T, B = 6, 3
RUN = Run("auto", torch.float64)


def make_stack(kind: str, layers: int = 2, **config: Any) -> Stack:
    """With gradients also for what a cell would not learn."""
    stack = Stack(cell_config(kind, layers=layers, hidden_size=H, **config), I)
    stack = stack.double().requires_grad_(True)
    randomize(stack)
    return stack


def inputs(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(T, B, I, generator=generator, dtype=torch.float64)


def some_state(stack: Stack, seed: int = 2) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(
        tuple(
            tuple(torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in layer)
            for layer in stack.start(B).layers
        )
    )


def run(stack: Stack, x: Tensor, state: State) -> tuple[Tensor, State]:
    y, last = stack(x, state, RUN, None)
    assert isinstance(y, Tensor) and isinstance(last, State)
    return y, last


def gradients(stack: Stack, loss: Tensor) -> dict[str, Tensor]:
    stack.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in stack.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_of_truncated_bptt_is_full_bptt_with_its_gradients_cut(kind: str) -> None:
    stack, x = make_stack(kind), inputs()
    start, cut = some_state(stack), 4
    _, carried = run(stack, x[:cut], start)
    y, last = run(stack, x[cut:], carried.detach())
    window = gradients(stack, y.pow(2).sum())

    _, state = run(stack, x[:cut], start)
    for part in state.tensors():
        part.register_hook(torch.zeros_like)
    y_cut, last_cut = run(stack, x[cut:], state)
    assert_equal(y_cut, y)
    for a, b in zip(last_cut.tensors(), last.tensors(), strict=True):
        assert_equal(a, b)
    for name, gradient in gradients(stack, y_cut.pow(2).sum()).items():
        assert_equal(gradient, window[name])

    y_full, last_full = run(stack, x, start)
    assert_equal(y_full[cut:], y)
    for a, b in zip(last_full.tensors(), last.tensors(), strict=True):
        assert_equal(a, b)
    full = gradients(stack, y_full[cut:].pow(2).sum())
    assert max((full[name] - window[name]).abs().max() for name in full) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_repeated_is_the_unrolled_run(kind: str) -> None:
    stack, x = make_stack(kind), inputs()
    state = some_state(stack)
    y, last = run(stack, x, state)
    for t in range(T):
        h, state = stack.step(x[t], state)
        assert_equal(h, y[t])
    for a, b in zip(state.tensors(), last.tensors(), strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_no_output_depends_on_a_later_input(kind: str) -> None:
    stack, x = make_stack(kind), inputs()
    changed = x.clone()
    changed[3] += 1.0
    state = some_state(stack)
    before, after = run(stack, x, state)[0], run(stack, changed, state)[0]
    assert torch.equal(before[:3], after[:3])
    assert all((before[t] - after[t]).abs().max() > 1e-12 for t in range(3, T))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_are_strangers_to_each_other(kind: str) -> None:
    stack, x = make_stack(kind), inputs()
    state, order = some_state(stack), torch.tensor([2, 0, 1])
    y, last = run(stack, x, state)
    permuted, last_permuted = run(stack, x[:, order], state.select(order))
    assert_equal(permuted, y[:, order])
    for a, b in zip(last_permuted.tensors(), last.select(order).tensors(), strict=True):
        assert_equal(a, b)
    alone, _ = run(stack, x[:, 1:2], state.select(torch.tensor([1])))
    assert_equal(alone, y[:, 1:2])


@pytest.mark.parametrize("kind", [kind for kind, (cell, _) in KINDS.items() if cell != "slstm"])
def test_a_learned_initial_state_starts_at_zero_and_gets_its_gradient(kind: str) -> None:
    learned = Stack(cell_config(kind, layers=2, hidden_size=H, initial_state="learned"), I)
    zero = Stack(cell_config(kind, layers=2, hidden_size=H), I).start(B)
    assert all(
        torch.equal(a, b) for a, b in zip(learned.start(B).tensors(), zero.tensors(), strict=True)
    )
    learned = learned.double()
    randomize(learned)
    x, parts = inputs(), learned.start(B).tensors()
    assert learned.initial is not None and len(parts) == len(learned.initial)
    copies = [part.detach().clone().requires_grad_() for part in parts]
    k = learned.layers[0].state_parts
    layers = tuple(tuple(copies[i : i + k]) for i in range(0, len(copies), k))
    y, _ = run(learned, x, State(layers))
    read = [k * n + i for n in range(2) for i in parts_read(learned.layers[n])]
    rows = torch.autograd.grad(y.pow(2).sum(), [copies[i] for i in read])
    gradients(learned, run(learned, x, learned.start(B))[0].pow(2).sum())
    for i, row in zip(read, rows, strict=True):
        assert row.abs().max() > 1e-6
        assert_equal(learned.initial[i].grad, row.sum(0))


def doubling(rows: int, size: int) -> tuple[Stack, State]:
    """h(t) = relu(2 h(t-1)), from ones, whatever the input."""
    stack = Stack(cell_config("elman-relu", layers=1, hidden_size=size), I)
    cell = stack.layers[0]
    with torch.no_grad():
        cell.W_xh.zero_()
        cell.W_hh.copy_(2.0 * torch.eye(size))
    return stack, State(((torch.ones(rows, size),),))


@pytest.mark.parametrize("engine", ["reference", "deferred", "auto"])
def test_weight_drop_zeroes_connections_for_the_whole_sequence(engine: str) -> None:
    """A dropped connection is 0 at every step, a kept one 2 / (1 - p) at every step."""
    torch.manual_seed(0)
    stack, state = doubling(rows=2, size=200)
    x, rates = torch.zeros(5, 2, I), RegularizationConfig(weight_drop=0.75)
    y, _ = stack(x, state, Run(engine), rates)
    kept = y[0, 0] != 0
    assert 20 < int(kept.sum()) < 80
    for t in range(5):
        assert torch.equal(y[t], torch.where(kept, 8.0 ** (t + 1), 0.0).expand(2, 200))
    again, _ = stack(x, state, Run(engine), rates)
    assert not torch.equal(again[0, 0] != 0, kept)
    evaluated, _ = stack(x, state, Run(engine), None)
    assert bool((evaluated[4] == 32.0).all())


def test_a_dropped_weight_gets_no_gradient() -> None:
    torch.manual_seed(0)
    stack, state = doubling(rows=2, size=50)
    rates = RegularizationConfig(weight_drop=0.5)
    y, _ = stack(torch.zeros(3, 2, I), state, Run(), rates)
    y.sum().backward()
    gradient = torch.diagonal(stack.layers[0].W_hh.grad)
    assert torch.equal(gradient != 0, y[0, 0] != 0)


@pytest.mark.parametrize("engine", ["reference", "deferred", "auto"])
def test_dropout_of_the_state_has_one_mask_for_the_whole_sequence(engine: str) -> None:
    """A dropped unit is 0 at every step, a kept one 2 / (1 - p) at every step; each row has its
    own."""
    torch.manual_seed(0)
    stack, state = doubling(rows=2, size=200)
    x, rates = torch.zeros(5, 2, I), RegularizationConfig(dropout_state=0.75)
    y, _ = stack(x, state, Run(engine), rates)
    kept = y[0] != 0
    assert 20 < int(kept[0].sum()) < 80 and not torch.equal(kept[0], kept[1])
    for t in range(5):
        assert torch.equal(y[t], torch.where(kept, 8.0 ** (t + 1), 0.0))
    again, _ = stack(x, state, Run(engine), rates)
    assert not torch.equal(again[0] != 0, kept)
    evaluated, _ = stack(x, state, Run(engine), None)
    assert bool((evaluated[4] == 32.0).all())


def test_dropout_of_the_state_is_for_matrices_alone() -> None:
    """A gate that keeps the state keeps all of it; every layer of a transition has one mask."""
    torch.manual_seed(0)
    stack = Stack(ModelConfig(cell="rhn", layers=1, hidden_size=50, transition_depth=2), I)
    cell = stack.layers[0]
    with torch.no_grad():
        for name, weight in cell.named_parameters():
            weight.zero_()
            if name == "W_hh" or name == "R_2":
                weight[:50] = torch.eye(50)
    state, rates = State(((torch.ones(1, 50),),)), RegularizationConfig(dropout_state=0.5)
    y, _ = stack(torch.zeros(1, 1, I), state, Run("reference"), rates)
    kept = [0.5 + 0.5 * math.tanh(2.0)]
    kept.append(0.5 * kept[0] + 0.5 * math.tanh(2.0 * kept[0]))
    values = torch.tensor([0.25, kept[1]])
    assert torch.isclose(y.flatten().unsqueeze(1), values).any(1).all()
    assert len(y.flatten().unique()) == 2


def passing(layers: int, size: int) -> Stack:
    """Layers that hand a positive input on as it is."""
    stack = Stack(cell_config("elman-relu", layers=layers, hidden_size=size), size)
    with torch.no_grad():
        for cell in stack.layers:
            cell.W_xh.copy_(torch.eye(size))
            cell.W_hh.zero_()
    return stack


@pytest.mark.parametrize("locked", [True, False])
def test_dropout_is_between_layers(locked: bool) -> None:
    torch.manual_seed(0)
    rates = RegularizationConfig(dropout=0.5, locked=locked)
    x = torch.ones(4, 3, 100)
    one = passing(1, 100)
    assert torch.equal(one(x, one.start(3), Run(), rates)[0], x)
    two = passing(2, 100)
    y, _ = two(x, two.start(3), Run(), rates)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y[0], y[3]) == locked
    assert not torch.equal(y[0, 0], y[0, 1])
    assert torch.equal(two(x, two.start(3), Run(), None)[0], x)


def test_a_tied_model_s_last_layer_is_as_wide_as_the_embedding() -> None:
    config = cell_config("lstm", layers=3, hidden_size=6, embedding_size=4, tied=True)
    stack = Stack(config, 4)
    assert [cell.hidden_size for cell in stack.layers] == [6, 6, 4]
    assert stack.output_size == 4


def test_state_select_where_and_detach() -> None:
    mine, other = (
        State(tuple((torch.randn(4, n, requires_grad=True),) * 2 for n in (2, 3))) for _ in range(2)
    )
    rows = torch.tensor([3, 3, 0])
    for part, chosen in zip(mine.tensors(), mine.select(rows).tensors(), strict=True):
        assert torch.equal(chosen, torch.stack([part[3], part[3], part[0]]))
    keep = torch.tensor([True, False, False, True])
    mixed = mine.where(keep, other)
    for a, b, c in zip(mine.tensors(), other.tensors(), mixed.tensors(), strict=True):
        assert torch.equal(c, torch.stack([a[0], b[1], b[2], a[3]]))
    for part, cut in zip(mine.tensors(), mine.detach().tensors(), strict=True):
        assert torch.equal(part, cut) and not cut.requires_grad
