"""One matrix times many small batches: what a recurrence does all day.

A library reorders a weight into blocks in every product, which for the few rows of a time step
costs as much as the product itself. Here the weight is reordered once, before the first step: by
MKL for float32 on Intel's processors, where it is the faster, and for a single row, else by oneDNN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncli.runtime import mkl_is_faster, mkl_is_there


class RepeatedProduct:
    """x (B, H) -> x W^T (B, G) for one ``weight`` W (G, H) and many x of equal B; no autograd."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        """``rows`` is B, for which the blocks are laid out."""
        self._weight = weight
        self._rows = rows
        self._by_mkl: Any = None
        self._by_onednn: Any = None
        if weight.device.type != "cpu":
            return
        if weight.dtype == torch.float32 and _left_to_mkl(rows):
            self._weight = weight.contiguous()
            self._by_mkl = torch.ops.mkl._mkl_reorder_linear_weight(self._weight, rows)
        elif weight.dtype in (torch.float32, torch.bfloat16) and _onednn_is_there():
            weight = weight.contiguous()
            self._by_onednn = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor
        if self._by_mkl is not None:
            out = torch.ops.mkl._mkl_linear(x, self._by_mkl, self._weight, None, self._rows)
        elif self._by_onednn is not None:
            out = torch.ops.mkldnn._linear_pointwise(x, self._by_onednn, None, "none", [], "")
        else:
            out = x @ self._weight.t()
        return out

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """x W^T + y, y: (B, G)."""
        if self._by_mkl is not None:
            return self(x).add_(y)
        if self._by_onednn is None:
            return torch.addmm(y, x, self._weight.t())
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, y, self._by_onednn, None, "add")
        return out


def _left_to_mkl(rows: int) -> bool:
    """Whether float32 products of so many rows are left to MKL."""
    return mkl_is_faster() or (rows == 1 and mkl_is_there())


def _onednn_is_there() -> bool:
    """Whether this build of torch has oneDNN and it is switched on."""
    return torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()
