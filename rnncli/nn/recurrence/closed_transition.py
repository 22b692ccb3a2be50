"""Deep transitions with their backward pass written by hand.

Within a time step the layers wait for each other: forward a product and a nonlinearity each, back a
multiplication and a product. What they read of the input and of the state before is one sum for all
of them, the slopes of a step's layers are formed together, and the gradients of matrices and
biases for all time steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.deep_transition import DeepTransition
from rnncli.nn.recurrence.closed import SQUASHING
from rnncli.nn.recurrence.products import RepeatedProduct
from rnncli.nn.state import CellState


class _Transition(torch.autograd.Function):
    """z_1 = f(p_1(t) + W_1 h(t-1)), z_l = f(p_l(t) + W_l z_(l-1) [+ S_l h(t-1)]), h(t) = z_L."""

    @staticmethod
    def forward(
        ctx: Any, summands: Tensor, h0: Tensor, nonlinearity: str, dtype: torch.dtype,
        W_hh: Tensor, *matrices: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """summands: (T, B, L H), p of all layers side by side, h0: (B, H), W_hh: (H, H), or with
        shortcuts (L H, H), W_1 and S_2, ..., S_L; matrices: W_2, ..., W_L, each (H, H)."""
        (T, B, _), H, L = summands.shape, h0.shape[1], 1 + len(matrices)
        f = SQUASHING[nonlinearity][0]
        low = [W.detach().to(dtype) for W in (W_hh, *matrices)]
        of_state, *above = (RepeatedProduct(W, B) for W in low)
        read = len(W_hh)  # so many columns of the sums read the state before
        z = summands.new_empty(T, L, B, H)
        operands = summands.new_empty(L, T, B, H, dtype=dtype)
        sums, h = summands.new_empty(B, read), h0
        of_sums = torch.split(sums, H, dim=1)
        # Views of each layer at each step, made at once: [layer][t].
        z_of, p_of = _views(z.unbind(1)), _views(torch.split(summands, H, dim=2))
        operands_of = _views(operands.unbind(0))
        p_read = summands[:, :, :read].unbind(0)
        for t in range(T):
            operand = operands_of[0][t].copy_(h)
            torch.add(p_read[t], of_state(operand), out=sums)
            h = z_of[0][t]
            f(of_sums[0], h)
            for layer, product in enumerate(above, 1):
                operand = operands_of[layer][t].copy_(h)
                rest = of_sums[layer] if read > H else p_of[layer][t]
                h = z_of[layer][t]
                f(torch.add(rest, product(operand)), h)
        ctx.save_for_backward(z, operands, *low)
        ctx.nonlinearity, ctx.weight_type = nonlinearity, W_hh.dtype
        return z[:, -1], h.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, dh = outputs
        z, operands, W_hh, *matrices = ctx.saved_tensors
        (T, L, B, H), dtype = z.shape, operands.dtype
        slope = SQUASHING[ctx.nonlinearity][1]
        to_state, *below = (RepeatedProduct(W.t().contiguous(), B) for W in (W_hh, *matrices))
        wide = len(W_hh) > H  # with shortcuts
        d = z.new_empty(L, T, B, H)  # with respect to the sums
        low = d if dtype == z.dtype else operands.new_empty(L, T, B, H)
        d_of, low_of = _views(d.unbind(0)), _views(low.unbind(0))
        for t in range(T - 1, -1, -1):
            slopes = slope(z[t]).unbind(0)
            dz = dh + dy[t]
            for layer in range(L - 1, -1, -1):
                torch.mul(dz, slopes[layer], out=d_of[layer][t])
                if low is not d:
                    low_of[layer][t].copy_(d_of[layer][t])
                if layer:
                    dz = below[layer - 1](low_of[layer][t]).to(z.dtype)
            read = torch.cat([of_layer[t] for of_layer in low_of], dim=1) if wide else low_of[0][t]
            dh = to_state(read).to(z.dtype)
        rows = low.flatten(1, 2)
        first = rows.transpose(0, 1).flatten(1) if wide else rows[0]
        wanted = ctx.needs_input_grad[4:]
        dW = [
            (of_layer.t() @ operands[n].flatten(0, 1)).to(ctx.weight_type) if wanted[n] else None
            for n, of_layer in enumerate((first, *rows[1:]))
        ]
        return d.permute(1, 2, 0, 3).flatten(2), dh, None, None, *dW


def _views(layers: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    return [layer.unbind(0) for layer in layers]


def has_closed_transition(cell: DeepTransition) -> bool:
    """Whether its units have one preactivation, and a derivative that follows from their value."""
    return cell.units.kind in SQUASHING


def run_closed_transition(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """As ``rnncli.nn.recurrence.run_reference``."""
    transition = cast(DeepTransition, cell)
    summands = projected
    if not transition.input_to_all and transition.depth > 1:
        biases = [getattr(cell, f"a_{n}") for n in range(2, transition.depth + 1)]
        above = torch.cat(biases).expand(*projected.shape[:2], -1)
        summands = torch.cat([projected, above], dim=2)
    y, h = _Transition.apply(  # type: ignore[no-untyped-call]
        summands, *state, transition.units.kind, dtype, *weights.values()
    )
    return y, (h,)
