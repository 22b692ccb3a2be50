"""Elman networks and gated recurrent units with their backward passes written by hand.

The recursion alone is here, from W_xh x + a to h. What does not wait for it is one operation over
all time steps: the derivatives with respect to the preactivations, but for the factor dL/dh(t), and
the weight gradients. A step of the backward pass is one product and two or three other operations
(the unit of Cho et al. 2014: two and five), where autograd's has a dozen; the fewer the units, the
more that is. (The LSTM is in ``closed_lstm``.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence.products import RepeatedProduct
from rnncli.nn.state import CellState

Runner = Callable[
    [Cell, Tensor, CellState, Mapping[str, Tensor], torch.dtype], tuple[Tensor, CellState]
]
Arguments = Callable[[Any, Mapping[str, Tensor]], tuple[Any, ...]]


class _Product:
    """v (B, H) -> W v (B, G) with operands in ``dtype``, in the type of v."""

    def __init__(self, weight: Tensor, rows: int, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._product = RepeatedProduct(weight.detach().to(dtype), rows)

    def __call__(self, v: Tensor) -> Tensor:
        return self._product(v.to(self._dtype)).to(v.dtype)

    def plus(self, v: Tensor, y: Tensor) -> Tensor:
        """W v + y, y: (B, G)."""
        if v.dtype == self._dtype:
            return self._product.plus(v, y)
        return self(v).add_(y)


def _weight_gradient(d: Tensor, v: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over t of d(t) v(t)^T: d: (T, B, G), v: (T, B, H) -> (G, H)."""
    rows, vectors = d.flatten(0, 1).to(dtype), v.flatten(0, 1).to(dtype)
    return (rows.t() @ vectors).to(weight.dtype)


def _states(projected: Tensor, h0: Tensor) -> Tensor:
    """Room for h(0), ..., h(T), the first one there: (T + 1, B, H)."""
    h = projected.new_empty(len(projected) + 1, *h0.shape)
    h[0] = h0
    return h


def _gru_slopes(gates: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """gates: (T, B, 2H), r and z; n: (T, B, H) -> r, z, the derivative of h(t) with respect to what
    n is the tanh of, and those of the gates with respect to what they are the sigmoids of."""
    r, z = gates.chunk(2, dim=2)
    return r, z, (1 - z) * (1 - n * n), torch.addcmul(gates, gates, gates, value=-1)


def _relu(z: Tensor, out: Tensor) -> None:
    torch.clamp_min(z, 0, out=out)


def _tanh(z: Tensor, out: Tensor) -> None:
    torch.tanh(z, out=out)


def _sigmoid(z: Tensor, out: Tensor) -> None:
    torch.sigmoid(z, out=out)


SQUASHING: dict[str, tuple[Callable[[Tensor, Tensor], None], Callable[[Tensor], Tensor]]] = {
    "tanh": (_tanh, lambda h: 1 - h * h),
    "sigmoid": (_sigmoid, lambda h: h - h * h),
    "relu": (_relu, lambda h: (h > 0).to(h.dtype)),
}
"""f of ``rnncli.nn.cells.base.NONLINEARITIES``, and its derivative from its value."""


class _Elman(torch.autograd.Function):
    """h(t) = f(p(t) + W_hh h(t-1))."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h0: Tensor, W_hh: Tensor, nonlinearity: str, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """projected: (T, B, H), h0: (B, H), W_hh: (H, H)."""
        T, B, _ = projected.shape
        h = _states(projected, h0)
        recurrent, f = _Product(W_hh, B, dtype), SQUASHING[nonlinearity][0]
        for p, before, after in zip(projected, h, h[1:], strict=False):
            f(recurrent.plus(before, p), after)
        ctx.save_for_backward(h, W_hh)
        ctx.nonlinearity, ctx.dtype = nonlinearity, dtype
        return h[1:], h[T].clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, dh_last = outputs
        h, W_hh = ctx.saved_tensors
        dy = dy.contiguous()
        slopes = SQUASHING[ctx.nonlinearity][1](h[1:])
        d = torch.empty_like(slopes)
        back = _Product(W_hh.t().contiguous(), h.shape[1], ctx.dtype)
        dh = dh_last + dy[-1]
        for t in range(len(d) - 1, -1, -1):
            torch.mul(dh, slopes[t], out=d[t])
            dh = back.plus(d[t], dy[t - 1]) if t else back(d[t])
        dW_hh = _weight_gradient(d, h[:-1], W_hh, ctx.dtype) if ctx.needs_input_grad[2] else None
        return d, dh, dW_hh, None, None


class _GRU(torch.autograd.Function):
    """n = tanh(p_n + r * u), u = U h + a_n;  h(t) = (1 - z) * n + z * h(t-1)."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h0: Tensor, W_hh: Tensor, a_n: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """projected: (T, B, 3H), h0: (B, H), W_hh: (3H, H), a_n: (H,)."""
        (T, B, _), H, h = projected.shape, h0.shape[1], _states(projected, h0)
        gates = projected.new_empty(T, B, 2 * H)
        n, u = projected.new_empty(T, B, H), projected.new_empty(T, B, H)
        r, z = gates.chunk(2, dim=2)
        p_gates, p_n = projected.split_with_sizes((2 * H, H), 2)
        recurrent = _Product(W_hh, B, dtype)
        steps = zip(p_gates, p_n, gates, r, z, u, n, h, h[1:], strict=False)
        for p_rz, p_c, rz, reset, update, inner, candidate, before, after in steps:
            of_gates, of_n = recurrent(before).split_with_sizes((2 * H, H), 1)
            torch.add(p_rz, of_gates, out=rz).sigmoid_()
            torch.add(of_n, a_n, out=inner)
            torch.addcmul(p_c, reset, inner, out=candidate).tanh_()
            torch.lerp(candidate, before, update, out=after)
        ctx.save_for_backward(h, gates, n, u, W_hh)
        ctx.dtype = dtype
        return h[1:], h[T].clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, dh_last = outputs
        h, gates, n, u, W_hh = ctx.saved_tensors
        (T, B, H), dy = n.shape, dy.contiguous()
        r, z, by_n, slopes = _gru_slopes(gates, n)
        # Derivatives of h(t) with respect to what W_hh h gives for r, z and n.
        slopes = torch.cat([slopes, by_n * r], dim=2)
        slopes[:, :, :H].mul_(by_n).mul_(u)
        slopes[:, :, H : 2 * H].mul_(h[:-1] - n)
        d = torch.empty_like(slopes)
        back = _Product(W_hh.t().contiguous(), B, ctx.dtype)
        dh, every = dh_last + dy[-1], []
        for t in range(T - 1, -1, -1):
            every.append(dh)
            torch.mul(slopes[t].view(B, 3, H), dh.unsqueeze(1), out=d[t].view(B, 3, H))
            before = back.plus(d[t], dy[t - 1]) if t else back(d[t])
            dh = before.addcmul_(dh, z[t])
        dW_hh = _weight_gradient(d, h[:-1], W_hh, ctx.dtype) if ctx.needs_input_grad[2] else None
        da_n = d[:, :, 2 * H :].sum((0, 1))
        dp = d.clone()
        torch.mul(torch.stack(every[::-1]), by_n, out=dp[:, :, 2 * H :])
        return dp, dh, dW_hh, da_n, None


class _GRUCho2014(torch.autograd.Function):
    """n = tanh(p_n + U (r * h(t-1)));  h(t) = (1 - z) * n + z * h(t-1)."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h0: Tensor, W_hh: Tensor, U: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """projected: (T, B, 3H), h0: (B, H), W_hh: (2H, H), U: (H, H)."""
        (T, B, _), H, h = projected.shape, h0.shape[1], _states(projected, h0)
        gates = projected.new_empty(T, B, 2 * H)
        n, kept = projected.new_empty(T, B, H), projected.new_empty(T, B, H)
        r, z = gates.chunk(2, dim=2)
        p_gates, p_n = (p.contiguous() for p in projected.split_with_sizes((2 * H, H), 2))
        recurrent, inner = _Product(W_hh, B, dtype), _Product(U, B, dtype)
        steps = zip(p_gates, p_n, gates, r, z, kept, n, h, h[1:], strict=False)
        for p_rz, p_c, rz, reset, update, rh, candidate, before, after in steps:
            torch.sigmoid(recurrent.plus(before, p_rz), out=rz)
            torch.mul(reset, before, out=rh)
            torch.tanh(inner.plus(rh, p_c), out=candidate)
            torch.lerp(candidate, before, update, out=after)
        ctx.save_for_backward(h, gates, n, kept, W_hh, U)
        ctx.dtype = dtype
        return h[1:], h[T].clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, dh_last = outputs
        h, gates, n, kept, W_hh, U = ctx.saved_tensors
        (T, B, H), dy = n.shape, dy.contiguous()
        r, z, by_n, slopes = _gru_slopes(gates, n)
        # Derivatives of r * h(t-1) with respect to p_r, and of h(t) to p_z.
        slopes[:, :, :H].mul_(h[:-1])
        slopes[:, :, H:].mul_(h[:-1] - n)
        by_r, by_z = slopes.chunk(2, dim=2)
        d, d_n = torch.empty_like(slopes), torch.empty_like(n)
        d_r, d_z = d.chunk(2, dim=2)
        back = _Product(W_hh.t().contiguous(), B, ctx.dtype)
        back_inner = _Product(U.t().contiguous(), B, ctx.dtype)
        dh = dh_last + dy[-1]
        for t in range(T - 1, -1, -1):
            torch.mul(dh, by_n[t], out=d_n[t])
            d_rh = back_inner(d_n[t])
            torch.mul(d_rh, by_r[t], out=d_r[t])
            torch.mul(dh, by_z[t], out=d_z[t])
            before = back.plus(d[t], dy[t - 1]) if t else back(d[t])
            dh = before.addcmul_(dh, z[t]).addcmul_(d_rh, r[t])
        needs = ctx.needs_input_grad
        dW_hh = _weight_gradient(d, h[:-1], W_hh, ctx.dtype) if needs[2] else None
        dU = _weight_gradient(d_n, kept, U, ctx.dtype) if needs[3] else None
        return torch.cat([d, d_n], dim=2), dh, dW_hh, dU, None


def _by(function: type[torch.autograd.Function], arguments: Arguments) -> Runner:
    """A runner as ``rnncli.nn.recurrence.run_reference``. ``arguments``: what ``function`` takes of
    the cell and its matrices after the first state."""

    def run(
        cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
        dtype: torch.dtype,
    ) -> tuple[Tensor, CellState]:  # fmt: skip
        y, h = function.apply(  # type: ignore[no-untyped-call]
            projected, *state, *arguments(cell, weights), dtype
        )
        return y, (h,)

    return run


run_closed_elman = _by(_Elman, lambda cell, weights: (weights["W_hh"], cell.nonlinearity))
run_closed_gru = _by(_GRU, lambda cell, weights: (weights["W_hh"], cell.a_n))
run_closed_gru_cho2014 = _by(_GRUCho2014, lambda cell, weights: (weights["W_hh"], weights["U"]))
