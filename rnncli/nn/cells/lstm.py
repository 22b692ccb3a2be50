"""Long short-term memory (Hochreiter and Schmidhuber 1997) with forget gate (Gers et al. 2000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.gated_transition import with_depth
from rnncli.nn.cells.initialization import remember
from rnncli.nn.cells.lstm_variants import VariantLSTM
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def lstm(
    config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
) -> Cell:
    """The LSTM with ``options``; without any it is the one for which there are kernels."""
    varied = options["layer_norm"] or options["coupled_gates"] or options["projection_size"]
    cls = VariantLSTM if varied else LSTM
    return with_depth(cls, config, options, input_size, hidden_size)


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
        remember(self.a, 1, self.hidden_size, config)

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"]

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        h, c = state
        i, f, g, o = (projected + product("W_hh", h)).chunk(4, dim=1)
        c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
        return torch.sigmoid(o) * torch.tanh(c), c
