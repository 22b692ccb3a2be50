"""The GRU and the LSTM without what reads h(t-1) (Feng et al. 2024, arXiv:2410.01201, sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells.linear import LinearCell
from rnncli.sections import ModelConfig


def candidate(kind: str, v: Tensor) -> Tensor:
    """h~ from v = W_h x: v itself, or with ``kind`` positive g(v) = v + 1/2 for v >= 0, sigmoid(v)
    below (app. B)."""
    return torch.where(v >= 0, v + 0.5, torch.sigmoid(v)) if kind == "positive" else v


class MinGRU(LinearCell):
    """Rows: update z, candidate h~ (sec. 3.1).

    z(t) = sigmoid(W_z x(t));  h~(t) = W_h x(t);  h(t) = (1 - z(t)) * h(t-1) + z(t) * h~(t).

    ``candidate`` positive: h~(t) = g(W_h x(t)) > 0, which the paper's scan of logarithms needs
    (app. B). The scan here does without them and takes both. The paper's program puts g around the
    initial state, too, which here is 0 or learned as it is.
    """

    gates = 2

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.candidate: str = options["candidate"]
        self.reset_parameters(config)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        z, v = projected.chunk(2, dim=-1)
        z = torch.sigmoid(z)
        return 1.0 - z, z * candidate(self.candidate, v)


class MinLSTM(LinearCell):
    """Rows: forget f, input i, candidate h~ (sec. 3.2), with ``candidate`` as ``MinGRU`` has it.

    f'(t) = f(t) / (f(t) + i(t));  i'(t) = i(t) / (f(t) + i(t));
    h(t) = f'(t) * h(t-1) + i'(t) * h~(t).
    """

    gates = 3

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.candidate: str = options["candidate"]
        self.reset_parameters(config)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        f, i, v = projected.chunk(3, dim=-1)
        # f / (f + i) = sigmoid(log f - log i), which no gate can make 0 / 0.
        f = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))
        return f, (1.0 - f) * candidate(self.candidate, v)
