"""torch's own recurrent networks, reproduced from their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncli.nn.recurrence import engines
from rnncli.nn.stack import Run, Stack
from rnncli.nn.state import State
from tests.nn.cases import H, I, assert_equal, cell_config, make, randomize

T, B, LAYERS = 6, 3, 3
PEERS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "elman-tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "elman-relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
}
CASES = [(kind, engine) for kind in PEERS for engine in engines(make(kind))]


def copy_weights(stack: Stack, peer: nn.RNNBase) -> None:
    """torch has two biases for each gate. Only the candidate's of a GRU are not one."""
    with torch.no_grad():
        for k, cell in enumerate(stack.layers):
            W_ih, W_hh, b_ih, b_hh = peer.all_weights[k]
            cell.W_xh.copy_(W_ih)
            cell.W_hh.copy_(W_hh)
            cell.a.copy_(b_ih + b_hh)
            if isinstance(peer, nn.GRU):
                cell.a[2 * H :] -= b_hh[2 * H :]
                cell.a_n.copy_(b_hh[2 * H :])


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_outputs_states_and_gradients(kind: str, engine: str) -> None:
    peer_class, options = PEERS[kind]
    peer = peer_class(I, H, LAYERS, dtype=torch.float64, **options)
    randomize(peer)
    stack = Stack(cell_config(kind, layers=LAYERS, hidden_size=H), I).double()
    copy_weights(stack, peer)
    torch.manual_seed(3)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    parts = stack.layers[0].state_parts
    start = [
        torch.randn(LAYERS, B, H, dtype=torch.float64, requires_grad=True) for _ in range(parts)
    ]

    state = State(tuple(tuple(part[k] for part in start) for k in range(LAYERS)))
    y, last = stack(x, state, Run(engine, torch.float64), None)
    stacked = [torch.stack([layer[p] for layer in last.layers]) for p in range(parts)]
    y_peer, last_peer = peer(x, tuple(start) if parts == 2 else start[0])
    last_peer = list(last_peer) if parts == 2 else [last_peer]

    mine, theirs = [y, *stacked], [y_peer, *last_peer]
    weights = [torch.randn_like(r) for r in mine]

    def gradients(results: list[Tensor], of: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(results, of, [w.clone() for w in weights], retain_graph=True)

    for found, expected in zip(mine, theirs, strict=True):
        assert_equal(found, expected)
    for found, expected in zip(
        gradients(mine, [x, *start]), gradients(theirs, [x, *start]), strict=True
    ):
        assert_equal(found, expected)
    for k, cell in enumerate(stack.layers):
        dW_xh, dW_hh, da = gradients(mine, [cell.W_xh, cell.W_hh, cell.a])
        W_ih, W_hh, b_ih, b_hh = gradients(theirs, list(peer.all_weights[k]))
        assert_equal(dW_xh, W_ih)
        assert_equal(dW_hh, W_hh)
        assert_equal(da, b_ih)
        if kind == "gru":
            (da_n,) = gradients(mine, [cell.a_n])
            assert_equal(da_n, b_hh[2 * H :])
