"""The GRU and the LSTM without what reads h(t-1) (Feng et al. 2024, arXiv:2410.01201, sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells.linear import LinearCell
from rnncli.sections import ModelConfig


class MinGRU(LinearCell):
    """Rows: update z, candidate h~ (sec. 3.1).

    z(t) = sigmoid(W_z x(t));  h~(t) = W_h x(t);  h(t) = (1 - z(t)) * h(t-1) + z(t) * h~(t).

    The candidate is linear, as in that section. The paper's form in logarithms needs positive
    states and puts g(v) = v + 1/2 for v >= 0, sigmoid(v) below, around it (app. B); this is not it.
    """

    gates = 2

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.reset_parameters(config)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        z, candidate = projected.chunk(2, dim=-1)
        z = torch.sigmoid(z)
        return 1.0 - z, z * candidate


class MinLSTM(LinearCell):
    """Rows: forget f, input i, candidate h~ (sec. 3.2, with a linear candidate as ``MinGRU``).

    f'(t) = f(t) / (f(t) + i(t));  i'(t) = i(t) / (f(t) + i(t));
    h(t) = f'(t) * h(t-1) + i'(t) * h~(t).
    """

    gates = 3

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.reset_parameters(config)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        f, i, candidate = projected.chunk(3, dim=-1)
        # f / (f + i) = sigmoid(log f - log i), which no gate can make 0 / 0.
        f = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))
        return f, (1.0 - f) * candidate
