"""Weight matrices laid out once for products with a few rows at a time.

With one row a product is bound by reading the weights, so what counts is their layout and their
size: float32 as it is, float16 (an error of 2e-4 of the result), int8 with a scale for each row of
the matrix and for each vector (1e-2).
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor

from rnncli.errors import UsageError, choices_hint

PRECISIONS = ("float32", "float16", "int8")


class Packed(Protocol):
    """A matrix W (G, H) and a bias b (G,)."""

    def __call__(self, v: Tensor) -> Tensor:
        """v: (B, H) -> W v + b: (B, G)."""
        ...

    def add(self, total: Tensor, v: Tensor) -> Tensor:
        """total: (B, G), v: (B, H) -> W v + total, without b."""
        ...


def pack(weight: Tensor, bias: Tensor | None, precision: str) -> Packed:
    """weight: (G, H), bias: (G,), zero for None; on a GPU float32 only.

    Raises UsageError for an unknown precision, and for one that this machine has no product for.
    """
    if precision not in PRECISIONS:
        hint = choices_hint(precision, PRECISIONS)
        raise UsageError(f"weights: unknown value {precision!r}{hint}")
    bias = torch.zeros_like(weight[:, 0]) if bias is None else bias
    if precision == "float32":
        return _Float32(weight, bias)
    packed = _Half if precision == "float16" else _Int8
    try:
        if weight.device.type != "cpu":
            raise RuntimeError
        return packed(weight, bias)
    except (RuntimeError, AttributeError, NotImplementedError):
        raise UsageError(
            f"weights: {precision} does not run on this machine's {weight.device.type}; "
            "float32 does everywhere"
        ) from None


class _Float32:
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        # Stored by columns: a row of the product is a sum of long rows. Up to twice as fast here.
        self.columns = weight.t().contiguous()
        self.bias = bias

    def __call__(self, v: Tensor) -> Tensor:
        return torch.addmm(self.bias, v, self.columns)

    def add(self, total: Tensor, v: Tensor) -> Tensor:
        return torch.addmm(total, v, self.columns)


class _Half:
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        largest = torch.finfo(torch.float16).max
        safe = weight.float().clamp(-largest, largest)
        self.packed = torch.ops.quantized.linear_prepack_fp16(safe, None)
        self.multiply = torch.ops.quantized.linear_dynamic_fp16.default
        self.bias = bias

    def __call__(self, v: Tensor) -> Tensor:
        return self.add(self.bias, v)

    def add(self, total: Tensor, v: Tensor) -> Tensor:
        product: Tensor = self.multiply(v, self.packed)
        return product.add_(total)


class _Int8:
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        scales = weight.float().abs().amax(1).clamp_min(1e-12) / 127
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():  # torch announces another interface, which is not there yet
            warnings.simplefilter("ignore")
            rows = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(rows, None)
        self.multiply = torch.ops.quantized.linear_dynamic.default
        self.bias = bias
        self._range = torch.zeros(2, weight.shape[1])
        self._range[0, 0], self._range[1, 0] = 1.0, -1.0
        # Without VNNI's 32-bit sums, pairs of 8-bit products overflow unless vectors have 7 bits.
        self.reduce_range = not torch.cpu._is_vnni_supported()

    def __call__(self, v: Tensor) -> Tensor:
        return self.add(self.bias, v)

    def add(self, total: Tensor, v: Tensor) -> Tensor:
        # torch takes one scale for all rows, so that each would depend on the others. All rows are
        # brought to a largest component of 1, and two more say that this is the range.
        scales = v.abs().amax(1, keepdim=True).clamp_min_(1e-30)
        rows = torch.cat([v / scales, self._range])
        product: Tensor = self.multiply(rows, self.packed, self.reduce_range)[:-2]
        return torch.addcmul(total, product, scales)
