"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rnncli.nn.cells.base import NONLINEARITIES, Cell, Product
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class Elman(Cell):
    """h(t) = f(W_xh x(t) + W_hh h(t-1) + a), f one of tanh, sigmoid, relu."""

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.nonlinearity = options["nonlinearity"]
        self.reset_parameters(config)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        return (NONLINEARITIES[self.nonlinearity](projected + product("W_hh", h)),)
