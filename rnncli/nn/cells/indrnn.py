"""The independently recurrent network (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import NONLINEARITIES, RANGES, Cell, Product, Range
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig

BOUND = 1.0


class IndRNN(Cell):
    """h(t) = f(W_xh x(t) + u * h(t-1) + a), f relu unless ``nonlinearity`` says otherwise.

    Each unit sees of the state only itself; layers on top of each other mix them. The paper holds
    |u| below gamma^(1/T) for sequences of T steps by cutting u after every update. Here
    the state may be carried without end, where that bound is 1; where nothing cuts it, a larger |u|
    counts as 1. u starts between 0 and 1, evenly.
    """

    recurrent = False

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.nonlinearity = options["nonlinearity"]
        self.u = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters(config)

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        nn.init.uniform_(self.u, 0.0, BOUND)

    @property
    def h_range(self) -> Range | None:
        return RANGES[self.nonlinearity]

    def after_update(self) -> None:
        """Cut u, which could not come back from beyond the bound."""
        with torch.no_grad():
            self.u.clamp_(-BOUND, BOUND)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        u = self.u.clamp(-BOUND, BOUND)
        return (NONLINEARITIES[self.nonlinearity](torch.addcmul(projected, u, h)),)
