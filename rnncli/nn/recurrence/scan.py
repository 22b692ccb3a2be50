"""Recurrences that are linear in their state: h(t) = f(t) * h(t-1) + b(t), for all steps at once.

What depends on the input alone, f and b, is there before the first step. The loop is two operands
read and one written a step, in place; its backward is the same loop from the other end. Where a
step is so small that calling it costs more than doing it, time is cut into about sqrt(T) chunks:
all of them are run at once from zero, then the state is handed on from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.state import CellState

_CHUNKED_FROM = 64
"""Steps."""
_CHUNKED_UP_TO = {"cpu": 1 << 10, "cuda": 1 << 18}
"""Elements of a step, B H."""


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        """f, b: (T, B, H), h0: (B, H) -> h(1) ... h(T): (T, B, H)."""
        h = _chunks(f, b, h0) if _in_chunks(b) else _loop(f, b, h0, torch.empty_like(b))
        ctx.save_for_backward(f, h, h0)
        return h

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        f, h, h0 = ctx.saved_tensors
        g = _backward(f, outputs[0])
        df = None
        if ctx.needs_input_grad[0]:
            df = torch.empty_like(g)
            torch.mul(g[1:], h[:-1], out=df[1:])
            torch.mul(g[0], h0, out=df[0])
        dh0 = g[0] * f[0] if ctx.needs_input_grad[2] else None
        return df, g, dh0


def _in_chunks(b: Tensor) -> bool:
    most = _CHUNKED_UP_TO.get(b.device.type, 0)
    return len(b) >= _CHUNKED_FROM and b[0].numel() <= most


def _loop(f: Tensor, b: Tensor, h0: Tensor, h: Tensor) -> Tensor:
    """Fill h (T, B, H) from f, b of that shape and h0 (B, H)."""
    before = h0
    for f_t, b_t, h_t in zip(f.unbind(0), b.unbind(0), h.unbind(0), strict=True):
        torch.addcmul(b_t, f_t, before, out=h_t)
        before = h_t
    return h


def _chunks(f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """The same in some 3 sqrt(T) operations. A chunk that starts from s instead of zero has s times
    the product of its f added to each of its states."""
    T = len(b)
    K = isqrt(T)
    whole = T - T % K
    by_chunk = (whole // K, K, *b.shape[1:])
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    fs, bs = f[:whole].reshape(by_chunk).unbind(1), b[:whole].reshape(by_chunk).unbind(1)
    states = h[:whole].view(by_chunk)
    products = torch.empty_like(states)
    local, through = states.unbind(1), products.unbind(1)
    local[0].copy_(bs[0])
    through[0].copy_(fs[0])
    for k in range(1, K):
        torch.addcmul(bs[k], fs[k], local[k - 1], out=local[k])
        torch.mul(fs[k], through[k - 1], out=through[k])
    starts = torch.empty_like(local[0])
    starts[0] = h0
    for c in range(1, len(starts)):
        torch.addcmul(local[-1][c - 1], through[-1][c - 1], starts[c - 1], out=starts[c])
    states.addcmul_(products, starts.unsqueeze(1))
    _loop(f[whole:], b[whole:], h[whole - 1], h[whole:])
    return h


def _backward(f: Tensor, dh: Tensor) -> Tensor:
    """g(t) = dh(t) + f(t+1) * g(t+1): the derivative by b(t), all (T, B, H)."""
    if _in_chunks(dh):
        earlier = _chunks(f[1:].flip(0), dh[:-1].flip(0), dh[-1]).flip(0)
        return torch.cat([earlier, dh[-1:]])
    g = dh.clone(memory_format=torch.contiguous_format)
    steps, forgets = g.unbind(0), f.unbind(0)
    for t in range(len(steps) - 2, -1, -1):
        steps[t].addcmul_(forgets[t + 1], steps[t + 1])
    return g


def scan(f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """f, b: (T, B, H), h0: (B, H) -> h of every step: (T, B, H)."""
    return cast(Tensor, _Scan.apply(f, b, h0))  # type: ignore[no-untyped-call]


def run_scan(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """projected: (T, B, G) -> h of every step (T, B, H) and the last state, for a LinearCell."""
    assert isinstance(cell, LinearCell)
    f, b = cell.coefficients(projected)
    h = scan(f, b, state[0])
    return h, (h[-1], *cell.rest(projected[-1]))
