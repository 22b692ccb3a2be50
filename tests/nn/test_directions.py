"""Stacks that run backward or both ways, that lead inputs past layers, and that mix cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells.gru import GRU
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.stack import Run, Stack, reverse
from rnncli.nn.state import State
from rnncli.sections import ModelConfig
from tests.nn.cases import (
    H,
    I,
    assert_equal,
    cell_config,
    engine_cases,
    random_input,
    randomize,
)

T, B, LAYERS = 6, 3, 3
RUN = Run("auto", torch.float64)
LENGTHS = torch.tensor([6, 2, 5])


def make_stack(input_size: int = I, **config: Any) -> Stack:
    values = {"cell": "lstm", "layers": LAYERS, "hidden_size": H, **config}
    stack = Stack(ModelConfig(**values), input_size).double()
    randomize(stack)
    return stack


def inputs(size: int = I, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(T, B, size, generator=generator, dtype=torch.float64)


def some_state(stack: Stack, seed: int = 2) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(
        tuple(
            tuple(torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in layer)
            for layer in stack.start(B).layers
        )
    )


def run(
    stack: Stack, x: Tensor, state: State, lengths: Tensor | None = None
) -> tuple[Tensor, State]:
    y, last = stack(x, state, RUN, None, lengths)
    return y, last


def single(stack: Stack, n: int, state: State) -> tuple[Stack, State]:
    """The cell ``n`` of a stack alone, run forward, and its part of the state."""
    cell = stack.layers[n]
    alone = make_stack(cell.input_size, layers=1, cell="lstm" if type(cell) is LSTM else "gru")
    alone.layers[0].load_state_dict(cell.state_dict())
    return alone, State((state.layers[n],))


# -- directions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "reference", "deferred", "closed"])
def test_bidirectional_is_torchs(engine: str) -> None:
    peer = nn.LSTM(I, H, LAYERS, bidirectional=True, dtype=torch.float64)
    randomize(peer)
    stack = make_stack(direction="bidirectional")
    with torch.no_grad():
        for cell, (W_ih, W_hh, b_ih, b_hh) in zip(stack.layers, peer.all_weights, strict=True):
            cell.W_xh.copy_(W_ih)
            cell.W_hh.copy_(W_hh)
            cell.a.copy_(b_ih + b_hh)
    assert stack.output_size == 2 * H
    x, state = inputs().requires_grad_(), some_state(stack)
    y, last = stack(x, state, Run(engine, torch.float64), None)
    start = tuple(torch.stack([layer[part] for layer in state.layers]) for part in range(2))
    y_peer, last_peer = peer(x, start)
    assert_equal(y, y_peer)
    for part in range(2):
        assert_equal(torch.stack([layer[part] for layer in last.layers]), last_peer[part])
    parameters = [stack.layers[1].W_hh, stack.layers[4].W_xh, x]
    peers = [peer.all_weights[1][1], peer.all_weights[4][0], x]
    found = torch.autograd.grad(y.pow(2).sum(), parameters)
    expected = torch.autograd.grad(y_peer.pow(2).sum(), peers)
    for a, b in zip(found, expected, strict=True):
        assert_equal(a, b)

    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    y_packed, _ = nn.utils.rnn.pad_packed_sequence(peer(packed, start)[0])
    y_padded, _ = run(stack, x, state, LENGTHS)
    mask = torch.arange(T).unsqueeze(1) < LENGTHS
    assert_equal(y_padded[mask], y_packed[mask])


def test_backward_is_forward_on_the_reversed_sequence() -> None:
    backward, forward = make_stack(direction="backward"), make_stack(direction="forward")
    x, state = inputs(), some_state(forward)
    y, last = run(backward, x, state)
    expected, last_expected = run(forward, x.flip(0), state)
    assert_equal(y, expected.flip(0))
    for a, b in zip(last.tensors(), last_expected.tensors(), strict=True):
        assert_equal(a, b)
    assert (y - run(forward, x, state)[0]).abs().max() > 0.01


def test_alternating_turns_with_every_layer() -> None:
    stack = make_stack(direction="alternating")
    x, state = inputs(), some_state(stack)
    y, _ = run(stack, x, state)
    for n in range(LAYERS):
        alone, part = single(stack, n, state)
        turned = n % 2 == 1
        x = run(alone, x.flip(0) if turned else x, part)[0]
        x = x.flip(0) if turned else x
    assert_equal(y, x)


@pytest.mark.parametrize("direction", ["backward", "alternating", "bidirectional"])
def test_what_stands_in_the_padding_changes_nothing(direction: str) -> None:
    stack = make_stack(direction=direction)
    x, state = inputs(), some_state(stack)
    mask = torch.arange(T).unsqueeze(1) < LENGTHS
    other = torch.where(mask.unsqueeze(2), x, 100.0)
    y, y_other = (run(stack, v, state, LENGTHS)[0] for v in (x, other))
    assert torch.equal(y[mask], y_other[mask])
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = run(stack, x[:length, row : row + 1], state.select(torch.tensor([row])))
        assert_equal(y[:length, row], alone[:, 0])


@pytest.mark.parametrize(("kind", "engine"), engine_cases())
def test_padded_sequences_of_every_cell_are_run_as_if_alone(kind: str, engine: str) -> None:
    """In both directions, by every engine, from a state that is not zero; the gradients of inputs
    and weights are those of the reference."""
    config = cell_config(kind, layers=1, hidden_size=H, direction="bidirectional")
    stack = Stack(config, I).double().requires_grad_(True)
    randomize(stack)
    run_as = Run(engine, torch.float64)
    x, wanted = inputs().requires_grad_(), dict(stack.named_parameters())
    wanted["x"] = x
    mask = (torch.arange(T).unsqueeze(1) < LENGTHS).unsqueeze(2)
    state = State(tuple(random_input(cell, T, B, seed=5)[1] for cell in stack.layers))
    weighing = torch.linspace(-1, 1, stack.output_size, dtype=torch.float64)
    found = []
    for padding in (0.0, 100.0):
        y, _ = stack(torch.where(mask, x, padding), state, run_as, None, LENGTHS)
        loss = (y[mask.squeeze(2)] * weighing).sum()
        found.append((y, torch.autograd.grad(loss, list(wanted.values()))))
    assert torch.equal(found[0][0][mask.squeeze(2)], found[1][0][mask.squeeze(2)])
    loss = torch.zeros((), dtype=torch.float64)
    reference = Run("reference", torch.float64)
    for row, length in enumerate(LENGTHS.tolist()):
        part = state.select(torch.tensor([row]))
        alone, _ = stack(x[:length, row : row + 1], part, reference, None)
        assert_equal(y[:length, row], alone[:, 0])
        loss = loss + (alone * weighing).sum()
    expected = torch.autograd.grad(loss, list(wanted.values()))
    assert not expected[-1].masked_select(~mask.expand_as(x)).any()
    for n, name in enumerate(wanted):
        assert expected[n].any(), name
        for _, gradients in found:
            assert_equal(gradients[n], expected[n])


def test_reverse_turns_each_sequence_by_itself() -> None:
    x = torch.arange(12).view(4, 3, 1)
    assert reverse(x, None).flatten().tolist() == [9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2]
    turned = reverse(x, torch.tensor([4, 1, 3]))
    assert turned[:, :, 0].T.tolist() == [[9, 6, 3, 0], [1, 4, 7, 10], [8, 5, 2, 11]]
    assert torch.equal(reverse(turned, torch.tensor([4, 1, 3])), x)


@pytest.mark.parametrize(
    ("direction", "layers", "causal"),
    [("forward", 2, True), ("alternating", 1, True), ("alternating", 2, False),
     ("backward", 1, False), ("bidirectional", 1, False)],
)  # fmt: skip
def test_only_causal_stacks_go_step_by_step(direction: str, layers: int, causal: bool) -> None:
    stack = make_stack(direction=direction, layers=layers)
    assert stack.is_causal == causal
    x, state = inputs(), some_state(stack)
    changed = x.clone()
    changed[-1] += 1.0
    sees = not torch.equal(run(stack, x, state)[0][0], run(stack, changed, state)[0][0])
    assert sees != causal
    if causal:
        assert stack.step(x[0], state)[0].shape == (B, H)
    else:
        with pytest.raises(UsageError, match=r"model\.direction: layers that run backward"):
            stack.step(x[0], state)


def test_both_directions_have_their_own_initial_state() -> None:
    stack = make_stack(direction="bidirectional", initial_state="learned")
    assert stack.initial is not None and len(stack.initial) == 2 * 2 * LAYERS
    run(stack, inputs(), stack.start(B))[0].pow(2).sum().backward()
    gradients = [parameter.grad for parameter in stack.initial]
    assert all(g is not None and g.abs().max() > 1e-6 for g in gradients)


# -- what leads past a layer ----------------------------------------------------------------------


def test_a_residual_adds_the_input_where_the_sizes_agree() -> None:
    stack = make_stack(residual="add")
    x, state = inputs(), some_state(stack)
    y, _ = run(stack, x, state)
    for n in range(LAYERS):
        alone, part = single(stack, n, state)
        out = run(alone, x, part)[0]
        x = out if n == 0 else x + out  # the first layer's input has another size
    assert_equal(y, x)
    same = make_stack(H, layers=1, residual="add")
    x, state = inputs(H), some_state(same)
    alone, part = single(same, 0, state)
    assert_equal(run(same, x, state)[0], x + run(alone, x, part)[0])


def test_a_highway_mixes_input_and_output_by_a_gate_of_the_input() -> None:
    stack = make_stack(residual="highway")
    assert sorted(stack.highways) == ["1", "2"]
    x, state = inputs(), some_state(stack)
    y, _ = run(stack, x, state)
    for n in range(LAYERS):
        alone, part = single(stack, n, state)
        out = run(alone, x, part)[0]
        if n > 0:
            gate = stack.highways[str(n)]
            share = torch.sigmoid(x @ gate.weight.T + gate.bias)
            out = share * out + (1 - share) * x
        x = out
    assert_equal(y, x)


def test_a_fresh_highway_passes_most_of_the_input_on() -> None:
    torch.manual_seed(0)
    stack = Stack(ModelConfig(layers=2, hidden_size=50, residual="highway"), I)
    gate = stack.highways["1"]
    assert bool((gate.bias == -1.0).all())
    share = torch.sigmoid(gate(0.1 * torch.randn(10, 50)))
    assert 0.2 < float(share.detach().mean()) < 0.35


@pytest.mark.parametrize("residual", ["add", "highway"])
@pytest.mark.parametrize("cell", ["lstm", "elman,gru,lstm", "indrnn", "echo-state"])
def test_steps_equal_the_unrolled_run_with_residuals(residual: str, cell: str) -> None:
    stack = make_stack(residual=residual, cell=cell)
    x, state = inputs(), some_state(stack)
    y, last = run(stack, x, state)
    for t in range(T):
        h, state = stack.step(x[t], state)
        assert_equal(h, y[t])
    for a, b in zip(state.tensors(), last.tensors(), strict=True):
        assert_equal(a, b)


def test_both_ways_with_residuals_and_a_projection() -> None:
    """Layers of 2 P outputs: the first layer's input has another size, the others' the same."""
    stack = make_stack(direction="bidirectional", residual="add", projection_size=3)
    assert stack.output_size == 6
    assert [cell.input_size for cell in stack.layers] == [I, I, 6, 6, 6, 6]
    x, state = inputs(), some_state(stack)
    full, _ = run(stack, x, state)
    with torch.no_grad():
        for cell in stack.layers[2:]:
            cell.W_rm.zero_()  # layers that give nothing
    plain, _ = run(stack, x, state)
    first = make_stack(direction="bidirectional", projection_size=3, layers=1)
    first.load_state_dict({k: v for k, v in stack.state_dict().items() if k in first.state_dict()})
    assert_equal(plain, run(first, x, State(state.layers[:2]))[0])
    assert (full - plain).abs().max() > 0.01


# -- mixtures -------------------------------------------------------------------------------------


def test_a_mixture_has_its_cells_in_order() -> None:
    stack = make_stack(cell="lstm, gru,lstm")
    assert [type(cell) for cell in stack.layers] == [LSTM, GRU, LSTM]
    x, state = inputs(), some_state(stack)
    y, last = run(stack, x, state)
    for n in range(LAYERS):
        alone, part = single(stack, n, state)
        x, last_alone = run(alone, x, part)
        for a, b in zip(last.layers[n], last_alone.layers[0], strict=True):
            assert_equal(a, b)
    assert_equal(y, x)


def test_an_option_goes_to_those_of_a_mixture_that_take_it() -> None:
    stack = make_stack(cell="lstm,gru,mogrifier", projection_size=3, rounds=2)
    assert [cell.output_size for cell in stack.layers] == [3, H, 3]
    with pytest.raises(UsageError, match=r"model\.cell: 'lstm,gru' names 2 cells for 3 layers"):
        make_stack(cell="lstm,gru")


@pytest.mark.parametrize("residual", ["none", "add", "highway"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru"])
def test_products_in_bfloat16_change_little(residual: str, cell: str) -> None:
    """Engines may give outputs in the shorter type."""
    torch.manual_seed(0)
    stack = Stack(ModelConfig(cell=cell, layers=2, hidden_size=32, residual=residual), 32)
    x, state = torch.randn(5, 3, 32), stack.start(3)
    exact, _ = stack(x, state, Run("auto", torch.float32), None)
    rounded, _ = stack(x, state, Run("auto", torch.bfloat16), None)
    rounded.float().sum().backward()
    assert 0 < (rounded.float() - exact).norm() / exact.norm() < 3e-2
