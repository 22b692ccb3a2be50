"""The sLSTM, an LSTM with exponential gates (Beck et al. 2024, xLSTM, sec. 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.initialization import remember
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class SLSTM(Cell):
    """Gates in the rows of W_xh, W_hh and a: input i, forget f, cell input z, output o, the first
    two as exponents i~ and f~.

    c(t) = f * c(t-1) + i * tanh(z~);  n(t) = f * n(t-1) + i;  h(t) = sigmoid(o~) * c(t) / n(t),
    with i = exp(i~) and f = sigmoid(f~) (eqs. 8 to 14). So that no exponential overflows, c and n
    are kept divided by exp(m), m(t) = max(log f + m(t-1), i~) (eqs. 15 to 17); h does not depend on
    m. State: h, c, n, m.

    ``forget_gate`` exp: f = exp(f~), the paper's other choice; the authors' program has the sigmoid
    alone. f starts at sigmoid(``forget_bias``) with both, so that the bias of f~ starts at the
    logarithm of that: at ``forget_bias`` itself every step would multiply the past by more than 1.

    ``heads``: units are divided among so many, and a unit sees of h only those of its own head; the
    recurrent matrices are block diagonal (sec. 2.2, memory mixing). W_hh (4H, H / heads) holds the
    blocks' rows.
    """

    gates = 4
    state_parts = 4

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.heads: int = options["heads"]
        self.forget_gate: str = options["forget_gate"]
        if hidden_size % self.heads:
            raise UsageError(
                f"model.heads: {hidden_size} units do not divide into {self.heads} heads; "
                "give a number of heads that divides the number of units of every layer"
            )
        if config.zoneout_cell:
            raise UsageError(
                "model.zoneout_cell: c, n and m of an sLSTM belong together and cannot be kept one "
                "by one; use model.zoneout, which keeps units of h"
            )
        if self.heads > 1:
            self.W_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size // self.heads))
        self.reset_parameters(config)

    @property
    def part_kinds(self) -> tuple[str, ...]:
        return ("hidden", "cell", "normalizer", "normalizer")

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"]

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        remember(self.a, 1, self.hidden_size, config)
        if self.forget_gate == "exp" and config.forget_start is not None:
            forget = self.a.data[self.hidden_size : 2 * self.hidden_size]
            forget.copy_(F.logsigmoid(forget))

    def step_weights(self) -> dict[str, Tensor]:
        """W_hh with its zeros, (4H, H): for the few rows of a time step one large product is faster
        than one for every head."""
        if self.heads == 1:
            return {"W_hh": self.W_hh}
        K, D = self.heads, self.W_hh.shape[1]
        own_head = torch.eye(K, dtype=self.W_hh.dtype, device=self.W_hh.device)
        whole = self.W_hh.view(4, K, D, 1, D) * own_head.view(1, K, 1, K, 1)
        return {"W_hh": whole.reshape(4 * self.hidden_size, self.hidden_size)}

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        h, c, n, m = state
        i, f, z, o = (projected + product("W_hh", h)).chunk(4, dim=1)
        # Before the first step there is no sum, and no scale that it was kept in.
        kept = torch.where(n > 0, self.log_forget(f) + m, i)
        m = torch.maximum(kept, i)
        i, f = torch.exp(i - m), torch.exp(kept - m)
        c = f * c + i * torch.tanh(z)
        n = f * n + i
        return torch.sigmoid(o) * c / n, c, n, m

    def log_forget(self, f: Tensor) -> Tensor:
        """f: (B, H), the sum f~ -> log f."""
        return f if self.forget_gate == "exp" else F.logsigmoid(f)
