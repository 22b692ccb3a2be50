"""The real-gated linear recurrent unit of Griffin (De et al. 2024, arXiv:2402.19427, sec. 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.cells.linear import LinearCell
from rnncli.sections import ModelConfig

C = 8.0
"""The paper's constant c."""
SLOWEST, FASTEST = 0.9, 0.999
"""Between these a^c starts, uniformly."""
_SMALLEST = 1e-12
"""Under a root, whose derivative at 0 is infinite."""


class RGLRU(LinearCell):
    """Rows: x~, recurrence gate r, input gate i.

    r(t) = sigmoid(W_a x(t) + b_a);  i(t) = sigmoid(W_x x(t) + b_x);  a(t) = a^(c r(t)), c = 8;
    h(t) = a(t) * h(t-1) + sqrt(1 - a(t)^2) * (i(t) * x~(t)), with a = sigmoid(Lambda).

    In Griffin a linear map has brought the input to H values before the unit; here x~ = W x(t) + b
    does, and the gates read x(t) itself, which is the same for dense matrices. The paper's are
    block-diagonal, and its unit is one part of a block with a convolution and a gated branch.
    """

    gates = 3

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.Lambda = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters(config)

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        with torch.no_grad():
            a = torch.empty_like(self.Lambda).uniform_(SLOWEST, FASTEST) ** (1.0 / C)
            self.Lambda.copy_(torch.logit(a))

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        x, r, i = projected.chunk(3, dim=-1)
        log_a = C * torch.sigmoid(r) * F.logsigmoid(self.Lambda)
        scale = torch.sqrt(-torch.expm1(2.0 * log_a) + _SMALLEST)
        return torch.exp(log_a), scale * torch.sigmoid(i) * x
