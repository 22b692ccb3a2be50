"""Recurrences that are linear in their state: h(t) = f(t) * h(t-1) + b(t), for all steps at once.

What depends on the input alone, f and b, is there before the first step. The loop is two operands
read and one written a step, in place; its backward is the same loop from the other end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.state import CellState


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        """f, b: (T, B, H), h0: (B, H) -> h(1) ... h(T): (T, B, H)."""
        h = torch.empty_like(b)
        before = h0
        for f_t, b_t, h_t in zip(f.unbind(0), b.unbind(0), h.unbind(0), strict=True):
            torch.addcmul(b_t, f_t, before, out=h_t)
            before = h_t
        ctx.save_for_backward(f, h, h0)
        return h

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        f, h, h0 = ctx.saved_tensors
        g = outputs[0].clone(memory_format=torch.contiguous_format)
        steps, forgets = g.unbind(0), f.unbind(0)
        for t in range(len(steps) - 2, -1, -1):
            steps[t].addcmul_(forgets[t + 1], steps[t + 1])
        df = None
        if ctx.needs_input_grad[0]:
            df = torch.empty_like(g)
            torch.mul(g[1:], h[:-1], out=df[1:])
            torch.mul(g[0], h0, out=df[0])
        dh0 = g[0] * f[0] if ctx.needs_input_grad[2] else None
        return df, g, dh0


def scan(f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """f, b: (T, B, H), h0: (B, H) -> h of every step: (T, B, H)."""
    return cast(Tensor, _Scan.apply(f, b, h0))  # type: ignore[no-untyped-call]


def run_scan(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """As ``rnncli.nn.recurrence.diagonal.run_diagonal``, for a LinearCell."""
    assert isinstance(cell, LinearCell)
    f, b = cell.coefficients(projected)
    h = scan(f, b, state[0])
    return h, (h[-1], *cell.rest(projected[-1]))
