"""Gated recurrent units, in both published orders of the reset gate.

Cho et al. 2014 reset the state before the recurrent product, U (r * h); the later form, which
vendor libraries run, resets after it, r * (U h + a_n), so that all three products are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.gated_transition import with_depth
from rnncli.nn.cells.layer_norm import layer_normalized
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def gru(config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int) -> Cell:
    """The later form with ``options``."""
    cls = layer_normalized(GRU) if options["layer_norm"] else GRU
    return with_depth(cls, config, options, input_size, hidden_size)


def gru_cho2014(
    config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
) -> Cell:
    """The unit of Cho et al. 2014 with ``options``."""
    cls = layer_normalized(GRUCho2014) if options["layer_norm"] else GRUCho2014
    return with_depth(cls, config, options, input_size, hidden_size)


class GRU(Cell):
    """The later form. Gates in the rows: reset r, update z, candidate n.

    n = tanh(W x + a + r * (U h + a_n));  h(t) = (1 - z) * n + z * h(t-1).

    ``layer_norm`` (Ba et al. 2016, supplementary material): the gates' sums are normalised
    together, the candidate's by itself, n = tanh(LN(W x) + a + r * (LN(U h) + a_n)).
    """

    gates = 3

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.a_n = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters(config)

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """The gates together, the candidate by itself."""
        H = self.hidden_size
        return dict.fromkeys(super().norm_groups(), (2 * H, H))

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"]

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        sizes = (2 * self.hidden_size, self.hidden_size)
        gates_x, n_x = projected.split_with_sizes(sizes, 1)
        gates_h, n_h = product("W_hh", h).split_with_sizes(sizes, 1)
        r, z = torch.sigmoid(gates_x + gates_h).chunk(2, dim=1)
        n = torch.tanh(torch.addcmul(n_x, r, n_h + self.a_n))
        return (torch.lerp(n, h, z),)


class GRUCho2014(Cell):
    """The unit of Cho et al. 2014, sec. 2.3 (eqs. 5 to 8), reset before the product.

    W_hh (2H, H) holds the recurrent matrices of r and z, U (H, H) that of the candidate:
    n = tanh(W x + U (r * h) + a);  h(t) = z * h(t-1) + (1 - z) * n.

    ``layer_norm`` as in ``GRU``, n = tanh(LN(W x) + LN(U (r * h)) + a).
    """

    gates = 3

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.W_hh = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.U = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.reset_parameters(config)

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {"W_hh": self.W_hh, "U": self.U}

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """As in ``GRU``."""
        H, groups = self.hidden_size, super().norm_groups()
        return {name: (2 * H, H) if name == "W_xh" else rows for name, rows in groups.items()}

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"]

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,) = state
        gates_x, n_x = projected.split_with_sizes((2 * self.hidden_size, self.hidden_size), 1)
        r, z = torch.sigmoid(gates_x + product("W_hh", h)).chunk(2, dim=1)
        n = torch.tanh(n_x + product("U", r * h))
        return (torch.lerp(n, h, z),)
