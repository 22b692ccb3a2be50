"""Small cells in float64 with every weight and bias random, and all that running one gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.slstm import SLSTM
from rnncli.nn.recurrence import engines, run
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig

I, H = 3, 4
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "elman-tanh": ("elman", {"nonlinearity": "tanh"}),
    "elman-sigmoid": ("elman", {"nonlinearity": "sigmoid"}),
    "elman-relu": ("elman", {"nonlinearity": "relu"}),
    "irnn": ("irnn", {}),
    "lstm": ("lstm", {}),
    "gru": ("gru", {}),
    "gru-cho2014": ("gru-cho2014", {}),
    "elman-layer-norm": ("elman", {"layer_norm": True}),
    "lstm-coupled": ("lstm", {"coupled_gates": True}),
    "lstm-projection": ("lstm", {"projection_size": 3}),
    "lstm-layer-norm": ("lstm", {"layer_norm": True}),
    "lstm-deep": ("lstm", {"transition_depth": 3}),
    "lstm-peephole": ("lstm-peephole", {}),
    "lstm-peephole-all": (
        "lstm-peephole",
        {"coupled_gates": True, "projection_size": 3, "layer_norm": True, "transition_depth": 2},
    ),
    "gru-layer-norm": ("gru", {"layer_norm": True}),
    "gru-deep": ("gru", {"transition_depth": 3}),
    "gru-cho2014-layer-norm": ("gru-cho2014", {"layer_norm": True}),
    "mogrifier": ("mogrifier", {}),
    "mogrifier-low-rank": ("mogrifier", {"rounds": 3, "rank": 2, "coupled_gates": True}),
    "mogrifier-layer-norm": ("mogrifier", {"layer_norm": True}),
    "indrnn": ("indrnn", {}),
    "slstm": ("slstm", {}),
    "slstm-heads": ("slstm", {"heads": 2}),
    "slstm-exp": ("slstm", {"forget_gate": "exp"}),
    "echo-state": ("echo-state", {"leak": 0.3}),
    "dt-rnn": ("dt-rnn", {"transition_depth": 3}),
    "dt-rnn-maxout": ("dt-rnn", {"nonlinearity": "maxout", "maxout_pieces": 3}),
    "dts-rnn": ("dts-rnn", {"transition_depth": 3, "nonlinearity": "tanh"}),
    "do-rnn": ("do-rnn", {"output_size": 3}),
    "dot-rnn-lp": ("dot-rnn", {"nonlinearity": "lp", "output_nonlinearity": "maxout"}),
    "dots-rnn": ("dots-rnn", {"transition_input": "all", "input_depth": 2, "output_depth": 2}),
    "rhn": ("rhn", {"transition_depth": 3}),
    "rhn-uncoupled": ("rhn", {"transition_depth": 2, "coupled_gates": False}),
    "fs-rnn": ("fs-rnn", {"fast_layers": 3}),
    "mingru": ("mingru", {}),
    "mingru-positive": ("mingru", {"candidate": "positive"}),
    "minlstm": ("minlstm", {}),
    "minlstm-positive": ("minlstm", {"candidate": "positive"}),
    "qrnn-f": ("qrnn", {"pooling": "f", "window": 1}),
    "qrnn-fo": ("qrnn", {}),
    "qrnn-ifo": ("qrnn", {"pooling": "ifo", "window": 3}),
    "sru": ("sru", {}),
    "sru-vectors": ("sru", {"recurrent_vectors": True}),
    "rg-lru": ("rg-lru", {}),
    "indrnn-layer-norm": ("indrnn", {"layer_norm": True}),
    "slstm-layer-norm": ("slstm", {"layer_norm": True, "heads": 2}),
    "echo-state-layer-norm": ("echo-state", {"layer_norm": True, "leak": 0.3}),
    "dots-rnn-layer-norm": ("dots-rnn", {"layer_norm": True, "transition_input": "all"}),
    "rhn-layer-norm": ("rhn", {"layer_norm": True, "coupled_gates": False}),
    "fs-rnn-layer-norm": ("fs-rnn", {"layer_norm": True, "fast_layers": 3}),
    "mingru-layer-norm": ("mingru", {"layer_norm": True}),
    "minlstm-layer-norm": ("minlstm", {"layer_norm": True}),
    "qrnn-layer-norm": ("qrnn", {"layer_norm": True}),
    "sru-layer-norm": ("sru", {"layer_norm": True}),
    "rg-lru-layer-norm": ("rg-lru", {"layer_norm": True}),
}
"""Cells with their options, by names for tests."""


def cell_config(kind: str, **values: Any) -> ModelConfig:
    """``kind``: a name of ``KINDS``."""
    cell, options = KINDS[kind]
    return ModelConfig(cell=cell, **{**options, **values})


def randomize(module: torch.nn.Module, seed: int = 0, std: float = 0.6) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def make(kind: str, inputs: int = I, hidden: int = H) -> Cell:
    """With gradients also for what the cell would not learn."""
    cell = make_cell(cell_config(kind), inputs, hidden).double().requires_grad_(True)
    randomize(cell)
    return cell


def some_weight(cell: Cell) -> Tensor:
    """A recurrent matrix where there is one, else W_xh."""
    return [*cell.recurrent_weights().values(), *cell.parameters()][0]


def engine_cases() -> list[tuple[str, str]]:
    """Every cell with every engine that runs it."""
    return [(kind, engine) for kind in KINDS for engine in engines(make(kind))]


def parts_read(cell: Cell) -> list[int]:
    """The parts of the state that a later step reads."""
    return [k for k, kind in enumerate(cell.part_kinds) if kind != "output"]


def random_input(cell: Cell, T: int, B: int, seed: int = 1) -> tuple[Tensor, CellState]:
    """x (T, B, I) and a state that is not zero, both wanting gradients. The normaliser of an sLSTM
    is a sum of positive gates."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, state = draw(T, B, cell.input_size), [draw(B, size) for size in cell.state_sizes]
    if isinstance(cell, SLSTM):
        state[2] = state[2].detach().exp().requires_grad_()
    return x, tuple(state)


def everything(
    cell: Cell,
    engine: str,
    T: int,
    B: int,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Outputs, last state, and the gradients of inputs, state and weights of a random function of
    all outputs and all of the last state. The cell is on ``device``."""
    x, state = random_input(cell, T, B)
    inputs, start = x.to(device, dtype), tuple(part.to(device, dtype) for part in state)
    y, last = run(cell, inputs, start, cell.step_weights(), engine=engine, dtype=dtype)
    generator = torch.Generator().manual_seed(2)
    results = {"y": y} | {f"last {k}": part for k, part in enumerate(last)}
    loss = sum(
        (r * torch.randn(r.shape, generator=generator, dtype=torch.float64).to(device)).sum()
        for r in results.values()
    )
    wanted = {"x": x} | {f"state {k}": state[k] for k in parts_read(cell)}
    wanted |= dict(cell.named_parameters())
    assert isinstance(loss, Tensor)
    gradients = [g.to(dtype) for g in torch.autograd.grad(loss, list(wanted.values()))]
    results |= {f"gradient of {n}": g for n, g in zip(wanted, gradients, strict=True)}
    return {name: tensor.detach() for name, tensor in results.items()}


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
