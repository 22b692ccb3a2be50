"""The decoder's unit of Cho et al. 2014, which reads the source's summary at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class SummaryGRU(Cell):
    """Cho et al. 2014 (arXiv:1406.1078), app. A.1.2, with y = e(y(t-1)) and the summary c:

    r = sigmoid(W_r y + U_r h(t-1) + C_r c + a_r), z likewise with W_z, U_z, C_z and a_z;
    n = tanh(W y + a + r * (U h(t-1) + C c));  h(t) = z * h(t-1) + (1 - z) * n.

    Unlike in the encoder's unit the reset gate is applied after the product, and to C c as well.
    The rows of W_xh, of C and of W_hh are those of r, z and n.
    """

    gates = 3

    def __init__(
        self,
        config: ModelConfig,
        options: Mapping[str, Any],
        input_size: int,
        hidden_size: int,
        summary_size: int,
    ) -> None:
        """``input_size``: of y; an input is [y; c]."""
        super().__init__(config, options, input_size, hidden_size)
        self.C = nn.Parameter(torch.empty(3 * hidden_size, summary_size))
        self.reset_parameters(config)

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        """x: (T, B, E + C), its second part the same at all steps -> W_xh y + a with C_r c and
        C_z c, and C c: (T, B, 4H)."""
        H, T = self.hidden_size, len(x)
        y, c = x.split_with_sizes((self.input_size, self.C.shape[1]), 2)
        of_c = self.linear(c[:1], self.C, None, dtype)
        gates, inner = of_c.split_with_sizes((2 * H, H), 2)
        of_y = self.linear(y, self.W_xh, self.a, dtype)
        return torch.cat(
            [of_y[:, :, : 2 * H] + gates, of_y[:, :, 2 * H :], inner.expand(T, -1, -1)], dim=2
        )

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (h,), H = state, self.hidden_size
        gates, n_y, n_c = projected.split_with_sizes((2 * H, H, H), 1)
        gates_h, n_h = product("W_hh", h).split_with_sizes((2 * H, H), 1)
        r, z = torch.sigmoid(gates + gates_h).chunk(2, dim=1)
        n = torch.tanh(torch.addcmul(n_y, r, n_h + n_c))
        return (torch.lerp(n, h, z),)
