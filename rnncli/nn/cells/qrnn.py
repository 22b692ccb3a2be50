"""Quasi-recurrent networks (Bradbury, Merity, Xiong and Socher 2017, arXiv:1611.01576)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import RANGES, Range
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig

_GATES = {"f": 2, "fo": 3, "ifo": 4}


class QRNN(LinearCell):
    """Gates from a convolution over the last k = ``window`` inputs, then ``pooling`` (sec. 2).

    z(t) = tanh(W_z x(t-k+1 ... t));  f(t), o(t), i(t) = sigmoid(W_f ...), sigmoid(W_o ...), ...
    f:   h(t) = f(t) * h(t-1) + (1 - f(t)) * z(t)
    fo:  c(t) = f(t) * c(t-1) + (1 - f(t)) * z(t);  h(t) = o(t) * c(t)
    ifo: c(t) = f(t) * c(t-1) + i(t) * z(t);        h(t) = o(t) * c(t)

    Rows of W_xh (G, k I) and a: z, f, o, i, as far as they are there; its columns are those of
    x(t-k+1), ..., x(t). What goes through the recurrence, c or with pooling f h, is the first part
    of the state; the k - 1 inputs before follow, the latest first.
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        self.pooling: str = options["pooling"]
        self.window: int = options["window"]
        self.gates = _GATES[self.pooling]
        self.state_parts = self.window
        super().__init__(config, options, input_size, hidden_size)
        rows = self.gates * hidden_size
        self.W_xh = nn.Parameter(torch.empty(rows, self.window * input_size))
        self.reset_parameters(config)

    @property
    def part_kinds(self) -> tuple[str, ...]:
        return ("hidden", *("input",) * (self.window - 1))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size, *(self.input_size,) * (self.window - 1))

    @property
    def emits_h(self) -> bool:
        return self.pooling == "f"

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"] if self.pooling == "f" else None

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        """-> (T, B, G + (k - 1) I): the sums of the gates, and what ``rest`` keeps of the input."""
        x = x.to(self.a.dtype)
        earlier = [part.unsqueeze(0) for part in state[:0:-1]]
        series = torch.cat([*earlier, x])
        windows = [series[k : k + len(x)] for k in range(self.window)]
        sums = self.read(torch.cat(windows, dim=2), dtype)
        return torch.cat([sums, *windows[:0:-1]], dim=2)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        z, f, *others = self._parts(projected)
        z, f = torch.tanh(z), torch.sigmoid(f)
        if self.pooling == "ifo":
            return f, torch.sigmoid(others[1]) * z
        return f, (1.0 - f) * z

    def _parts(self, projected: Tensor) -> tuple[Tensor, ...]:
        """(..., G + (k - 1) I) -> the sum of each gate, and of the inputs kept as much as fits."""
        return torch.split(projected, self.hidden_size, dim=-1)

    def rest(self, projected: Tensor) -> CellState:
        kept = projected[..., self.gates * self.hidden_size :]
        return torch.split(kept, self.input_size, dim=-1) if self.window > 1 else ()

    def emit(self, h: Tensor, x: Tensor, projected: Tensor, dtype: torch.dtype) -> Tensor:
        if self.pooling == "f":
            return h
        return torch.sigmoid(self._parts(projected)[2]) * h
