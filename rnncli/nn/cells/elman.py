"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncli.config import ModelConfig
from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.state import CellState

NONLINEARITIES = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}


class Elman(Cell):
    """h(t) = f(W_xh x(t) + W_hh h(t-1) + a), f one of tanh, sigmoid, relu."""

    def __init__(self, config: ModelConfig, input_size: int, hidden_size: int) -> None:
        super().__init__(config, input_size, hidden_size)
        self.nonlinearity = config.nonlinearity
        self.reset_parameters(config)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        return (NONLINEARITIES[self.nonlinearity](projected + product("W_hh", h)),)
