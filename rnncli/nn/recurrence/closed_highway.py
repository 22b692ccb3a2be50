"""Recurrent highway networks with their backward pass written by hand.

The L layers of T time steps are one chain. Along it a step forward is a product, two nonlinearities
and a weighted mean, and a step back two multiplications and a product; the derivatives that do not
wait for it are formed for the layers of a time step together, which stay in the processor's cache,
and the gradients of matrices and biases for all time steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.recurrent_highway import RecurrentHighway
from rnncli.nn.recurrence.products import RepeatedProduct
from rnncli.nn.state import CellState
from rnncli.nn.state_dropout import StateDropout


class _Highway(torch.autograd.Function):
    """s_l = h_l t_l + s_(l-1) c_l, where c_l = 1 - t_l if the gates are coupled.

    As in ``closed_lstm``, h = tanh(x) is 2 sigmoid(2 x) - 1, so that a row of preactivations is
    squashed as one; what has the factor of 2 is exact in any binary type.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, s0: Tensor, mask: Tensor | None, coupled: bool,
        dtype: torch.dtype, *layers: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """projected: (T, B, G), s0 and ``mask`` of what is multiplied: (B, H), layers: W_hh and
        R_2, ..., R_L, each (G, H), then a_2, ..., a_L, each (G,)."""
        (T, B, G), H, L = projected.shape, s0.shape[1], (len(layers) + 1) // 2
        matrices = [_double(W.detach().to(dtype), 0, H) for W in layers[:L]]
        products = [RepeatedProduct(W, B) for W in matrices]
        biases = [_double(a, 0, H).expand(B, G).contiguous() for a in layers[L:]]
        s = projected.new_empty(T, L, B, H)
        gates = projected.new_empty(T, L, B, G)  # sigmoids: of 2 h, and of t and c
        operands = projected.new_empty(L, T, B, H, dtype=dtype)
        below, h = s0, torch.empty_like(s0)
        for t, p in enumerate(_double(projected, 2, H)):
            of_step = zip(products, (p, *biases), s[t], gates[t], operands[:, t], strict=True)
            for product, summand, after, gate, operand in of_step:
                operand.copy_(below if mask is None else below * mask)
                torch.add(summand, product(operand), out=gate).sigmoid_()
                candidate, transform, *others = gate.split(H, dim=1)
                torch.add(candidate, candidate, out=h).sub_(1)
                if coupled:
                    torch.lerp(below, h, transform, out=after)
                else:
                    torch.mul(h, transform, out=after).addcmul_(below, others[0])
                below = after
        ctx.save_for_backward(s0, mask, s, gates, operands, *matrices)
        ctx.coupled, ctx.weight_types = coupled, [W.dtype for W in layers[:L]]
        return s[:, -1], below.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        dy, ds = outputs
        s0, mask, s, gates, operands, *matrices = ctx.saved_tensors
        (T, L, B, G), H = gates.shape, s0.shape[1]
        back = [RepeatedProduct(W.t().contiguous(), B) for W in matrices]
        d_projected = gates.new_empty(T, B, G)
        d = operands.new_empty(L, T, B, G)  # with respect to the preactivations, of 2 h for h
        slopes = gates.new_empty(L, B, G)  # of a time step's states by their preactivations
        by_h, by_t, *by_c = slopes.split(H, dim=2)
        h, below = s.new_empty(L, B, H), s.new_empty(L, B, H)
        for t in range(T - 1, -1, -1):
            candidate, transform, *others = gates[t].split(H, dim=2)
            below[0], below[1:] = (s[t - 1, -1] if t else s0), s[t, :-1]
            torch.addcmul(gates[t], gates[t], gates[t], value=-1, out=slopes)
            torch.add(candidate, candidate, out=h).sub_(1)
            by_h.mul_(transform)
            by_h.add_(by_h)
            if ctx.coupled:
                by_t.mul_(h.sub_(below))
                carry = torch.sub(1, transform, out=h)
            else:
                by_t.mul_(h)
                (carry,) = others
                by_c[0].mul_(below)
            ds = ds + dy[t]
            for layer in range(L - 1, -1, -1):
                sums = slopes[layer]
                sums.view(B, G // H, H).mul_(ds.unsqueeze(1))
                operand = d[layer, t].copy_(sums)
                through = back[layer](operand).to(ds.dtype)
                if mask is not None:
                    through.mul_(mask)
                ds = torch.addcmul(through, ds, carry[layer])
            d_projected[t] = slopes[0]
        dW = [
            _double((d[n].flatten(0, 1).t() @ operands[n].flatten(0, 1)).to(like), 0, H)
            if ctx.needs_input_grad[5 + n]
            else None
            for n, like in enumerate(ctx.weight_types)
        ]
        da = [_double(d[n].sum((0, 1), dtype=gates.dtype), 0, H) for n in range(1, L)]
        return _double(d_projected, 2, H), ds, None, None, None, *dW, *da


def _double(x: Tensor, dim: int, first: int) -> Tensor:
    """``x`` with the ``first`` of dimension ``dim`` times two."""
    x = x.detach().clone()
    x.narrow(dim, 0, first).mul_(2)
    return x


def run_closed_highway(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """As ``rnncli.nn.recurrence.run_reference``; ``cell`` may be a ``StateDropout`` of one."""
    mask: Tensor | None = None
    if isinstance(cell, StateDropout):
        mask = cell.mask("W_hh", state[0])
        cell = cell.cell
    highway = cast(RecurrentHighway, cell)
    biases = (getattr(cell, f"a_{n}") for n in range(2, highway.depth + 1))
    y, s = _Highway.apply(  # type: ignore[no-untyped-call]
        projected, *state, mask, highway.coupled, dtype, *weights.values(), *biases
    )
    return y, (s,)
