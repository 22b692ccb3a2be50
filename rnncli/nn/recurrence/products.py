"""One matrix times many small batches: what a recurrence does all day.

oneDNN reorders a weight into blocks in every product, which for the few rows of a time step costs
as much as the product itself. Here the weight is reordered once, before the first step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_PACKED_TYPES = (torch.float32, torch.bfloat16)


class RepeatedProduct:
    """x (B, H) -> x W^T (B, G) for one ``weight`` W (G, H) and many x of equal B; no autograd."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        """``rows`` is B, for which the blocks are laid out."""
        self._weight = weight
        self._packed: Any = None
        if weight.device.type == "cpu" and weight.dtype in _PACKED_TYPES and rows > 1 and _usable():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is None:
            return x @ self._weight.t()
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        return out

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """x W^T + y, y: (B, G)."""
        if self._packed is None:
            return torch.addmm(y, x, self._weight.t())
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, y, self._packed, None, "add")
        return out


def _usable() -> bool:
    """Whether this build of torch has oneDNN and it is switched on."""
    return torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()
