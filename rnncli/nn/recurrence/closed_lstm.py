"""The LSTM with its backward pass written by hand.

Everything that does not wait for the recursion is one operation over all time steps: the input
product, the derivatives of the gates, the weight gradients. What is left in the loop is one product
and a few elementwise operations a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence.products import RepeatedProduct
from rnncli.nn.state import CellState


def _to_rows(weight: Tensor) -> Tensor:
    """Rows i, f, g, o -> i, f, o, 2 g: all four are then sigmoids, as tanh(x) = 2 sigmoid(2x) - 1
    (a sigmoid costs a fraction of a tanh, and doubling is exact in any binary type)."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, o, g + g])


def _from_rows(gradient: Tensor) -> Tensor:
    """The gradient of ``_to_rows``: rows i, f, o, 2 g -> i, f, g, o."""
    i, f, o, g = gradient.chunk(4)
    return torch.cat([i, f, g + g, o])


class _ClosedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, c0: Tensor, W_xh: Tensor, W_hh: Tensor, a: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """x: (T, B, I), h0 and c0: (B, H), W_xh: (4H, I), W_hh: (4H, H), a: (4H,)."""
        (T, B, I), H, like = x.shape, h0.shape[1], c0.dtype
        ctx.input_type, ctx.weight_type = x.dtype, W_xh.dtype
        x, W_x, W_h = x.to(dtype), _to_rows(W_xh.to(dtype)), _to_rows(W_hh.to(dtype))
        projected = torch.addmm(_to_rows(a.to(dtype)), x.reshape(T * B, I), W_x.t())
        recurrent = RepeatedProduct(W_h, B)
        # All four gates of a step in one row: i, f, o and s = sigmoid(2 g), candidate 2 s - 1.
        gates = c0.new_empty(T, B, 4 * H, dtype=like)
        h = projected.new_empty(T + 1, B, H)
        c, tanh_c = c0.new_empty(T + 1, B, H), c0.new_empty(T, B, H)
        h[0], c[0] = h0, c0
        steps = zip(projected.view(T, B, 4 * H), gates, c, c[1:], tanh_c, h, h[1:], strict=False)
        for projection, gate, c_before, c_after, squashed, h_before, h_after in steps:
            gate.copy_(recurrent.plus(h_before, projection)).sigmoid_()
            i, f, o, s = gate.chunk(4, dim=1)
            torch.mul(f, c_before, out=c_after).addcmul_(i, s, value=2).sub_(i)
            torch.add(c_after, c_after, out=squashed).sigmoid_().mul_(2).sub_(1)
            torch.mul(o, squashed, out=h_after)
        ctx.save_for_backward(x, W_x, W_h, h, c, tanh_c, gates)
        return h[1:], h[T].to(like), c[T].clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, dh_last, dc_last = outputs
        x, W_x, W_h, h, c, tanh_c, gates = ctx.saved_tensors
        (T, B, I), H, dtype = x.shape, h.shape[2], x.dtype
        i, f, o, s = gates.chunk(4, dim=2)
        # Derivatives of c(t) with respect to the preactivations of i, f and s, and of h(t) with
        # respect to that of o and to c(t); all steps at once.
        slopes = torch.addcmul(gates, gates, gates, value=-1)
        slopes[:, :, :H].mul_(torch.add(s, s).sub_(1))
        slopes[:, :, H : 2 * H].mul_(c[:-1])
        slopes[:, :, 2 * H : 3 * H].mul_(tanh_c)
        slopes[:, :, 3 * H :].mul_(i).mul_(2)
        dh_dc = torch.addcmul(o, o, tanh_c * tanh_c, value=-1)
        d_all = x.new_empty(T, B, 4 * H)
        d_step = gates.new_empty(B, 4 * H)
        by_gate, by_o = d_step.view(B, 4, H), d_step[:, 2 * H : 3 * H]
        recurrent = RepeatedProduct(W_h.t().contiguous(), B)
        dh, dc = dh_last.to(dtype), dc_last.clone()
        dc_rows = dc.unsqueeze(1)
        for t in range(T - 1, -1, -1):
            dh = dh + dy[t]
            slope, d = slopes[t], d_all[t]
            dc.addcmul_(dh, dh_dc[t])
            torch.mul(slope.view(B, 4, H), dc_rows, out=by_gate)
            torch.mul(slope[:, 2 * H : 3 * H], dh, out=by_o)
            d.copy_(d_step)
            dc.mul_(f[t])
            dh = recurrent(d)
        d_rows = d_all.view(T * B, 4 * H)
        dW_xh = _from_rows(d_rows.t() @ x.reshape(T * B, I)).to(ctx.weight_type)
        dW_hh = _from_rows(d_rows.t() @ h[:-1].reshape(T * B, H)).to(ctx.weight_type)
        da = _from_rows(d_rows.sum(0, dtype=ctx.weight_type))
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (d_rows @ W_x).view(T, B, I).to(ctx.input_type)
        return dx, dh.to(dc.dtype), dc, dW_xh, dW_hh, da, None


def run_closed_lstm(
    cell: Cell, x: Tensor, state: CellState, weights: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[Tensor, CellState]:
    """As ``rnncli.nn.recurrence.run``, for ``rnncli.nn.cells.lstm.LSTM``."""
    y, h, c = _ClosedLSTM.apply(  # type: ignore[no-untyped-call]
        x, *state, cell.W_xh, weights["W_hh"], cell.a, dtype
    )
    return y, (h, c)
