"""The library's fused kernels: oneDNN and ATen on a CPU, cuDNN on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.elman import Elman
from rnncli.nn.cells.gru import GRU
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.state import CellState

_MANY_STEPS = 64
"""From so many steps on, the packing of weights pays off even for a single sequence."""


def has_kernel(cell: Cell) -> bool:
    """Whether the library has a kernel that computes exactly this cell."""
    if type(cell) is Elman:
        return cell.nonlinearity in ("tanh", "relu")
    return type(cell) in (LSTM, GRU)


def pays(x: Tensor) -> bool:
    """Whether x (T, B, I) is enough for a kernel: on a CPU each call packs the weights anew, which
    is a loss for few rows."""
    T, B = x.shape[:2]
    return x.device.type != "cpu" or T >= _MANY_STEPS or (T > 1 and B > 1)


def run_vendor(
    cell: Cell, x: Tensor, state: CellState, weights: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[Tensor, CellState]:
    """As ``rnncli.nn.recurrence.run``; everything in ``dtype`` but the last state."""
    like = cell.a.dtype
    bias = torch.zeros_like(cell.a)
    if isinstance(cell, GRU):
        bias = torch.cat([bias[: 2 * cell.hidden_size], cell.a_n])
    flat = [w.to(dtype) for w in (cell.W_xh, weights["W_hh"], cell.a, bias)]
    parts = [s.to(dtype).contiguous().unsqueeze(0) for s in state]
    x = x.to(dtype)
    if x.device.type == "cuda":
        flat = _side_by_side(flat)
    options = (True, 1, 0.0, torch.is_grad_enabled(), False, False)
    VF: Any = torch._VF
    if isinstance(cell, LSTM):
        y, h, c = VF.lstm(x, tuple(parts), flat, *options)
        last: tuple[Tensor, ...] = (h, c)
    elif isinstance(cell, GRU):
        y, h = VF.gru(x, parts[0], flat, *options)
        last = (h,)
    else:
        kernel = VF.rnn_relu if getattr(cell, "nonlinearity", "") == "relu" else VF.rnn_tanh
        y, h = kernel(x, parts[0], flat, *options)
        last = (h,)
    return y, tuple(s.squeeze(0).to(like) for s in last)


def _side_by_side(weights: list[Tensor]) -> list[Tensor]:
    """The same in one piece of memory, as cuDNN wants them."""
    joined = torch.cat([weight.flatten() for weight in weights])
    parts = torch.split(joined, [weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
