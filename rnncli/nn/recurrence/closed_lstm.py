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
from rnncli.nn.state import CellState


def _gates_last(weight: Tensor) -> Tensor:
    """Rows i, f, g, o -> i, f, o, g, so that the three sigmoids lie side by side."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, o, g])


class _ClosedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, c0: Tensor, W_xh: Tensor, W_hh: Tensor, a: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """x: (T, B, I), h0 and c0: (B, H), W_xh: (4H, I), W_hh: (4H, H), a: (4H,)."""
        (T, B, I), H, like = x.shape, h0.shape[1], c0.dtype
        x, W_x, W_h = x.to(dtype), _gates_last(W_xh.to(dtype)), _gates_last(W_hh.to(dtype))
        rows = x.reshape(T * B, I)
        preactivations = torch.addmm(_gates_last(a.to(dtype)), rows, W_x.t()).view(T, B, 4 * H)
        W_h_columns = W_h.t().contiguous()
        gates = preactivations.new_empty((T, B, 4 * H), dtype=like)
        h = preactivations.new_empty((T + 1, B, H))
        c, tanh_c = c0.new_empty(T + 1, B, H), c0.new_empty(T, B, H)
        h[0], c[0] = h0, c0
        for t in range(T):
            gate = gates[t].copy_(preactivations[t].addmm_(h[t], W_h_columns))
            gate[:, : 3 * H].sigmoid_()
            gate[:, 3 * H :].tanh_()
            i, f, o, g = gate.chunk(4, dim=1)
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
            torch.mul(o, torch.tanh(c[t + 1], out=tanh_c[t]), out=h[t + 1])
        ctx.save_for_backward(x, W_x, W_h, h, c, tanh_c, gates)
        ctx.weight_type = W_xh.dtype
        return h[1:], h[T].to(like), c[T].clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, dh_last, dc_last = outputs
        x, W_x, W_h, h, c, tanh_c, gates = ctx.saved_tensors
        (T, B, I), H, dtype = x.shape, h.shape[2], x.dtype
        i, f, o, g = gates.chunk(4, dim=2)
        # Derivatives of c(t) with respect to the preactivations of i, f and g, and of h(t) with
        # respect to that of o and to c(t); all steps at once.
        slopes = torch.empty_like(gates)
        slope = gates[:, :, : 3 * H] * (1 - gates[:, :, : 3 * H])
        torch.mul(slope[:, :, :H], g, out=slopes[:, :, :H])
        torch.mul(slope[:, :, H : 2 * H], c[:-1], out=slopes[:, :, H : 2 * H])
        torch.mul(slope[:, :, 2 * H :], tanh_c, out=slopes[:, :, 2 * H : 3 * H])
        torch.mul(1 - g * g, i, out=slopes[:, :, 3 * H :])
        dh_dc = (1 - tanh_c * tanh_c) * o
        d_all = x.new_empty(T, B, 4 * H)
        d_step = gates.new_empty(B, 4 * H)
        dh, dc = dh_last.to(dtype), dc_last.clone()
        for t in range(T - 1, -1, -1):
            dh = dh + dy[t]
            dc.addcmul_(dh, dh_dc[t])
            torch.mul(slopes[t].view(B, 4, H), dc.unsqueeze(1), out=d_step.view(B, 4, H))
            torch.mul(slopes[t, :, 2 * H : 3 * H], dh, out=d_step[:, 2 * H : 3 * H])
            d_all[t].copy_(d_step)
            dc.mul_(f[t])
            dh = d_all[t] @ W_h
        d_rows = d_all.view(T * B, 4 * H)
        dW_xh = _gates_last(d_rows.t() @ x.reshape(T * B, I)).to(ctx.weight_type)
        dW_hh = _gates_last(d_rows.t() @ h[:-1].reshape(T * B, H)).to(ctx.weight_type)
        da = _gates_last(d_rows.sum(0, dtype=ctx.weight_type))
        dx = (d_rows @ W_x).view(T, B, I) if ctx.needs_input_grad[0] else None
        return dx, dh.to(dc.dtype), dc, dW_xh, dW_hh, da, None


def run_closed_lstm(
    cell: Cell, x: Tensor, state: CellState, weights: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[Tensor, CellState]:
    """As ``rnncli.nn.recurrence.run``, for ``rnncli.nn.cells.lstm.LSTM``."""
    y, h, c = _ClosedLSTM.apply(  # type: ignore[no-untyped-call]
        x, *state, cell.W_xh, weights["W_hh"], cell.a, dtype
    )
    return y, (h, c)
