"""Simple recurrent units (Lei, Zhang, Wang, Dai and Artzi 2018, arXiv:1709.02755)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.cells.layer_norm import layer_normalized
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def make_sru(
    config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
) -> Cell:
    """With ``recurrent_vectors`` the unit is not linear in its state."""
    unit: type[Cell] = SRUWithVectors if options["recurrent_vectors"] else SRU
    if options["layer_norm"]:
        unit = layer_normalized(unit)
    return unit(config, options, input_size, hidden_size)


class SRU(LinearCell):
    """The unit of the paper's first version (arXiv:1709.02755v1, eqs. 3 to 7, g the identity).

    x~(t) = W x(t);  f(t) = sigmoid(W_f x(t) + b_f);  r(t) = sigmoid(W_r x(t) + b_r);
    c(t) = f(t) * c(t-1) + (1 - f(t)) * x~(t);  h(t) = r(t) * c(t) + (1 - r(t)) * x(t).

    Rows: x~, f, r, and, where x has not H values, those of a matrix whose product takes the place
    of x(t) in h(t). The state is c.
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        self.gates = 3 if input_size == hidden_size else 4
        super().__init__(config, options, input_size, hidden_size)
        self.reset_parameters(config)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        x, f, *_ = projected.chunk(self.gates, dim=-1)
        f = torch.sigmoid(f)
        return f, (1.0 - f) * x

    def emit(self, h: Tensor, x: Tensor, projected: Tensor, dtype: torch.dtype) -> Tensor:
        _, _, r, *others = projected.chunk(self.gates, dim=-1)
        past = others[0] if others else x.to(h.dtype)
        return torch.lerp(past, h, torch.sigmoid(r))


class SRUWithVectors(Cell):
    """The unit of the final version (EMNLP 2018, sec. 3): v_f * c(t-1) is added to the sum of f(t)
    and v_r * c(t-1) to that of r(t). The state is h and c; rows as in ``SRU``."""

    recurrent = False
    state_parts = 2

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        self.gates = 3 if input_size == hidden_size else 4
        super().__init__(config, options, input_size, hidden_size)
        self.v_f = nn.Parameter(torch.empty(hidden_size))
        self.v_r = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters(config)

    @property
    def part_kinds(self) -> tuple[str, ...]:
        return ("output", "cell")

    @property
    def reads_by_matrix(self) -> bool:
        return self.gates == 4

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """As of ``SRU``."""
        return {"W_xh": (self.hidden_size,) * self.gates}

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        """-> (T, B, 4 H): the sums, and what is led past the recurrence."""
        sums = super().project(x, state, dtype)
        return sums if self.gates == 4 else torch.cat([sums, x.to(sums.dtype)], dim=2)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        _, before = state
        candidate, f, r, past = projected.chunk(4, dim=1)
        f = torch.sigmoid(f + self.v_f * before)
        r = torch.sigmoid(r + self.v_r * before)
        c = torch.lerp(candidate, before, f)  # f c + (1 - f) x~
        return torch.lerp(past, c, r), c
