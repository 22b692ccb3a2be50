"""Recurrent layers on top of each other, with the dropout between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.config import ModelConfig, RegularizationConfig
from rnncli.nn.cells import Cell, make_cell
from rnncli.nn.dropout import drop_weights, dropout
from rnncli.nn.recurrence import require_engine, run
from rnncli.nn.state import CellState, State


@dataclass(frozen=True)
class Run:
    """How the layers are run: the engine, and the type of the operands of products."""

    engine: str = "auto"
    dtype: torch.dtype = torch.float32


class Stack(nn.Module):
    """``config.layers`` cells; layer l reads the outputs of layer l - 1."""

    def __init__(self, config: ModelConfig, input_size: int) -> None:
        super().__init__()
        sizes = config.layer_sizes()
        inputs = (input_size, *sizes[:-1])
        self.cells = nn.ModuleList(
            make_cell(config, inputs[k], sizes[k]) for k in range(config.layers)
        )
        self.output_size = sizes[-1]
        self.initial: nn.ParameterList | None = None
        if config.initial_state == "learned":
            self.initial = nn.ParameterList(
                nn.Parameter(torch.zeros(cell.hidden_size))
                for cell in self.layers
                for _ in range(cell.state_parts)
            )

    @property
    def layers(self) -> list[Cell]:
        """The cells, first layer first."""
        return cast("list[Cell]", list(self.cells))

    def start(self, rows: int) -> State:
        """The state before the first token, for ``rows`` sequences: zero or learned."""
        zero = State(tuple(cell.zero_state(rows) for cell in self.layers))
        if self.initial is None:
            return zero
        learned = iter(self.initial)
        return State(
            tuple(tuple(next(learned).expand_as(s) for s in layer) for layer in zero.layers)
        )

    def forward(
        self, x: Tensor, state: State, run_as: Run, regularization: RegularizationConfig | None
    ) -> tuple[Tensor, State]:
        """x: (T, B, I) -> outputs of the last layer (T, B, H) and the last state.

        ``regularization`` None means no dropout (evaluation).
        """
        last: list[CellState] = []
        for k, cell in enumerate(self.layers):
            weights = cell.recurrent_weights()
            if regularization is not None:
                if k > 0:
                    x = dropout(x, regularization.dropout, locked=regularization.locked)
                weights = {
                    name: drop_weights(w, regularization.weight_drop) for name, w in weights.items()
                }
            x, layer_state = run(
                cell, x, state.layers[k], weights, engine=run_as.engine, dtype=run_as.dtype
            )
            last.append(layer_state)
        return x, State(tuple(last))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x: (B, I) -> the last layer's h(t): (B, H) and the next state; without autograd."""
        last: list[CellState] = []
        for cell, layer_state in zip(self.layers, state.layers, strict=True):
            projected = cell.project(x.unsqueeze(0), x.dtype).squeeze(0)
            product = partial(_product, cell.recurrent_weights())
            layer_state = cell.step(projected, layer_state, product)
            last.append(layer_state)
            x = layer_state[0]
        return x, State(tuple(last))

    def require_engine(self, engine: str) -> None:
        """Raise UsageError when a layer cannot be run by ``engine``."""
        for cell in self.layers:
            require_engine(cell, engine)


def _product(weights: dict[str, Tensor], name: str, v: Tensor) -> Tensor:
    return F.linear(v, weights[name])
