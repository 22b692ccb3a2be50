"""The echo state network (Jaeger 2001): a fixed random recurrence that a learned layer reads.

The table of cells says that W_xh, W_hh and a are never learned and which spectral radius W_hh has;
both are options of every cell (``frozen``, ``learned``, ``spectral_radius``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.cells.elman import Elman, NormalizedElman
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def echo_state(
    config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
) -> Cell:
    """The reservoir with ``options``; without a leak it is a simple recurrent network."""
    leaks = options["leak"] != 1.0
    if options["layer_norm"]:
        cls: type[Elman] = LeakyNormalizedElman if leaks else NormalizedElman
    else:
        cls = LeakyElman if leaks else Elman
    return cls(config, options, input_size, hidden_size)


class LeakyElman(Elman):
    """Leaky integrator units, h(t) = (1 - leak) h(t-1) + leak f(W_xh x(t) + W_hh h(t-1) + a)
    (Jaeger et al. 2007, with their step size in the leak)."""

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.leak: float = options["leak"]

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        (fresh,) = super().step(projected, state, product)
        return (torch.lerp(h, fresh, self.leak),)


class LeakyNormalizedElman(LeakyElman, NormalizedElman):
    """The same with f(g * LN(W_xh x(t) + W_hh h(t-1)) + a) in it."""
