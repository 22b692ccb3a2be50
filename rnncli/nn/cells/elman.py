"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rnncli.nn.cells.base import NONLINEARITIES, RANGES, Cell, Product, Range
from rnncli.nn.cells.layer_norm import Norm
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def elman(
    config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
) -> Cell:
    """The network with ``options``."""
    cls = NormalizedElman if options["layer_norm"] else Elman
    return cls(config, options, input_size, hidden_size)


class Elman(Cell):
    """h(t) = f(W_xh x(t) + W_hh h(t-1) + a), f one of tanh, sigmoid, relu.

    With relu, W_hh started as the identity and a as zero it is the IRNN (Le et al. 2015, sec. 3).
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.nonlinearity = options["nonlinearity"]
        self.reset_parameters(config)

    @property
    def h_range(self) -> Range | None:
        return RANGES[self.nonlinearity]

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        return (NONLINEARITIES[self.nonlinearity](projected + product("W_hh", h)),)


class NormalizedElman(Elman):
    """h(t) = f(g * LN(W_xh x(t) + W_hh h(t-1)) + a) (Ba et al. 2016, eq. 4): the whole sum is
    normalised, and ``a`` is what the paper calls b."""

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.norm = Norm(hidden_size)

    def sums(self, v: Tensor) -> Tensor:
        """W_xh x as it is: ``a`` comes after the norm."""
        return v

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        f = NONLINEARITIES[self.nonlinearity]
        return (f(self.norm(projected + product("W_hh", h)) + self.a),)
