"""Long short-term memory (Hochreiter and Schmidhuber 1997) with forget gate (Gers et al. 2000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class LSTM(Cell):
    """Gates in the rows of W_xh, W_hh and a: input i, forget f, candidate g, output o.

    c(t) = f * c(t-1) + i * g;  h(t) = o * tanh(c(t)).
    """

    gates = 4
    state_parts = 2

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.reset_parameters(config)

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        if config.init != "uniform":
            # Remember by default (Jozefowicz et al. 2015, sec. 2.2).
            self.a.data[self.hidden_size : 2 * self.hidden_size] = config.forget_bias

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        h, c = state
        i, f, g, o = (projected + product("W_hh", h)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
