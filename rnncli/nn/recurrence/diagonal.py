"""Any elementwise cell at the speed of a derivation by hand.

Back-propagation through time is a chain of Jacobians dh(t)/dh(t-1). Those of a cell whose ``step``
is elementwise but for its products are made of diagonal matrices and of the recurrent matrices.
The diagonals of all time steps are formed at once, by running ``step`` once over T B rows with the
states and products that the forward pass left: the derivative of the sum of a vector by another one
is the diagonal. What remains for the loop over time is a few multiplications and the products with
the transposed matrices. Weight gradients, and those of everything that does not carry state, are
formed after it, all time steps at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence.products import RepeatedProduct
from rnncli.nn.state import CellState


def run_diagonal(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """projected: (T, B, G) -> h of every step (T, B, H) and the last state."""
    names = tuple(weights)
    others = {name: p for name, p in cell.named_parameters() if name not in weights}
    h, *last = _Diagonal.apply(  # type: ignore[no-untyped-call]
        cell, names, tuple(others), dtype, projected, *state, *weights.values(), *others.values()
    )
    return h, tuple(last)


class _Forward:
    """The loop over time, and what it leaves: states (T + 1, B, H), products (T, B, G)."""

    def __init__(
        self, cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        rows = projected.shape[1]
        matrices = {name: RepeatedProduct(w.to(dtype), rows) for name, w in weights.items()}
        self.names: list[str] = []
        products: list[list[Tensor]] = []
        states = [[part] for part in state]
        stage = 0

        def product(name: str, v: Tensor) -> Tensor:
            nonlocal stage
            result = matrices[name](v.to(dtype)).to(v.dtype)
            if stage == len(products):
                products.append([])
                self.names.append(name)
            products[stage].append(result)
            stage += 1
            return result

        for step_input in projected.unbind(0):
            stage = 0
            state = cell.step(step_input, state, product)
            for parts, part in zip(states, state, strict=True):
                parts.append(part)
        self.states = [torch.stack(parts) for parts in states]
        self.products = [torch.stack(parts) for parts in products]


class _Diagonal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: Cell, names: tuple[str, ...], others: tuple[str, ...], dtype: torch.dtype,
        projected: Tensor, *tensors: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """``tensors``: parts of the state, the matrices ``names``, the parameters ``others``."""
        parts = len(tensors) - len(names) - len(others)
        matrices = dict(zip(names, tensors[parts:], strict=False))
        run = _Forward(cell, projected, tensors[:parts], matrices, dtype)
        ctx.cell, ctx.names, ctx.others, ctx.dtype = cell, names, others, dtype
        ctx.parts, ctx.stages = parts, run.names
        ctx.save_for_backward(projected, *tensors[parts:], *run.states, *run.products)
        return run.states[0][1:], *(part[-1].clone() for part in run.states)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        saved = iter(ctx.saved_tensors)
        projected = next(saved)
        matrices = {name: next(saved) for name in ctx.names}
        parameters = {name: next(saved) for name in ctx.others}
        states = [next(saved) for _ in range(ctx.parts)]
        chain = _Chain(ctx.cell, projected, states, list(saved), parameters)
        chain.back(outputs[0], outputs[1:], [matrices[name] for name in ctx.stages], ctx.dtype)
        needs = ctx.needs_input_grad[4:]
        after = 1 + ctx.parts
        wanted = {n for n, need in zip(ctx.names, needs[after:], strict=False) if need}
        weights = chain.weight_gradients(ctx.stages, wanted, matrices, ctx.dtype)
        rest = chain.remaining_gradients(needs[0], needs[after + len(ctx.names) :])
        return (None, None, None, None, rest[0], *chain.dstate, *weights, *rest[1:])


class _Chain:
    """The derivatives of ``step`` at all T B places at once, and the chain of them over time."""

    def __init__(
        self, cell: Cell, projected: Tensor, states: Sequence[Tensor], products: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        self.T, self.B = projected.shape[:2]
        self.projected = self._leaf(projected)
        self.parameters = {n: p.detach().requires_grad_() for n, p in parameters.items()}
        self.before = [self._leaf(part[:-1]) for part in states]
        self.products = [self._leaf(part) for part in products]
        self.vectors: list[Tensor] = []

        def product(name: str, v: Tensor) -> Tensor:
            self.vectors.append(v)
            return self.products[len(self.vectors) - 1]

        with torch.enable_grad():
            arguments = (self.projected, tuple(self.before), product)
            self.after: CellState = torch.func.functional_call(cell, self.parameters, arguments)
        self.dstate: list[Tensor] = []
        self.dafter = [projected.new_empty(self.T, self.B, s.shape[1]) for s in self.before]
        self.dvectors = [projected.new_empty(self.T, self.B, v.shape[1]) for v in self.vectors]
        self.dproducts = [projected.new_empty(self.T, self.B, p.shape[1]) for p in self.products]

    def _leaf(self, part: Tensor) -> Tensor:
        """(T, B, H) -> (T B, H), where a graph begins."""
        return part.detach().reshape(self.T * self.B, -1).requires_grad_()

    def _diagonals(self, target: Tensor) -> list[tuple[Tensor, ...] | None]:
        """d target / d each of ``before`` and ``products``, a diagonal (B, gates, H) a step."""
        sources = [*self.before, *self.products]
        if not target.requires_grad:
            return [None] * len(sources)
        ones = torch.ones_like(target)
        found = torch.autograd.grad(target, sources, ones, retain_graph=True, allow_unused=True)
        H = target.shape[1]
        return [
            None if d is None else d.view(self.T, self.B, d.shape[1] // H, H).unbind(0)
            for d in found
        ]

    def back(
        self, dy: Tensor | None, dlast: Sequence[Tensor | None], matrices: Sequence[Tensor],
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        """Run the chain from the last step to the first: fills ``dafter``, ``dvectors``,
        ``dproducts`` and ``dstate``."""
        parts, stages = len(self.before), len(self.products)
        transposed = [RepeatedProduct(m.to(dtype).t().contiguous(), self.B) for m in matrices]
        # By what is differentiated: the diagonals, and the gradients they multiply.
        targets = [*self.after, *self.vectors]
        gradients = [d.unbind(0) for d in (*self.dafter, *self.dvectors)]
        whole = [
            next((k for k, part in enumerate(self.before) if part is v), None) for v in self.vectors
        ]
        into: list[list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]]
        into = [[] for _ in range(parts + stages)]
        for number, target in enumerate(targets):
            if number >= parts and whole[number - parts] is not None:
                continue  # the vector is a part of the state itself
            for source, diagonal in enumerate(self._diagonals(target)):
                if diagonal is not None:
                    into[source].append((diagonal, gradients[number]))
        dproducts = [d.unbind(0) for d in self.dproducts]
        steps_dy = None if dy is None else dy.unbind(0)
        current = [
            torch.zeros_like(space[0]) if d is None else d
            for d, space in zip(dlast, self.dafter, strict=True)
        ]
        for t in range(self.T - 1, -1, -1):
            for k in range(parts):
                if k == 0 and steps_dy is not None:
                    torch.add(current[0], steps_dy[t], out=gradients[0][t])
                else:
                    gradients[k][t].copy_(current[k])
            direct: list[Tensor | None] = [None] * parts
            for stage in range(stages - 1, -1, -1):
                d = dproducts[stage][t]
                _add_up(into[parts + stage], t, d)
                dv = transposed[stage](d.to(dtype))
                part = whole[stage]
                if part is None:
                    gradients[parts + stage][t].copy_(dv)
                else:
                    so_far = direct[part]
                    direct[part] = dv.to(d.dtype) if so_far is None else so_far + dv
            for k in range(parts):
                so_far = direct[k]
                if into[k] or so_far is None:
                    current[k] = _add_up(into[k], t, torch.empty_like(current[k]))
                    if so_far is not None:
                        current[k] += so_far
                else:
                    current[k] = so_far
        self.dstate = current

    def weight_gradients(
        self, stages: Sequence[str], wanted: set[str], matrices: Mapping[str, Tensor],
        dtype: torch.dtype,
    ) -> list[Tensor | None]:  # fmt: skip
        """dL/dW of each matrix: the sum over time as one product."""
        found: dict[str, Tensor] = {}
        for name, d, v in zip(stages, self.dproducts, self.vectors, strict=True):
            if name in wanted:
                rows = d.view(self.T * self.B, -1).to(dtype)
                part = (rows.t() @ v.detach().to(dtype)).to(matrices[name].dtype)
                found[name] = found[name] + part if name in found else part
        return [found.get(name) for name in matrices]

    def remaining_gradients(
        self, needs_projected: bool, needs_parameters: Sequence[bool]
    ) -> list[Tensor | None]:
        """Those of ``projected`` (T, B, G) and of the parameters that ``step`` uses by itself."""
        pairs = [
            (target, d.view(self.T * self.B, -1))
            for target, d in zip(
                (*self.after, *self.vectors), (*self.dafter, *self.dvectors), strict=True
            )
            if target.requires_grad and not any(target is part for part in self.before)
        ]
        sources = [self.projected, *self.parameters.values()]
        needs = [needs_projected, *needs_parameters]
        inputs = [s for s, need in zip(sources, needs, strict=True) if need]
        if not inputs or not pairs:
            return [None] * len(sources)
        targets, ds = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(targets, inputs, ds, allow_unused=True))
        results = [next(found) if need else None for need in needs]
        if results[0] is not None:
            results[0] = results[0].view(self.T, self.B, -1)
        return results


def _add_up(
    terms: Sequence[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]], t: int, out: Tensor
) -> Tensor:
    """out: (B, gates H) = sum of diagonal (B, gates, H) times gradient (B, H), at step t."""
    if not terms:
        return out.zero_()
    for number, (diagonals, gradients) in enumerate(terms):
        diagonal, gradient = diagonals[t], gradients[t].unsqueeze(1)
        space = out.view(diagonal.shape)
        if number == 0:
            torch.mul(diagonal, gradient, out=space)
        else:
            space.addcmul_(diagonal, gradient)
    return out
