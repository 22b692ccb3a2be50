"""The regulariser of Pascanu, Mikolov and Bengio (2013, sec. 3.3) against vanishing gradients.

With s(k) the state after step k and E the loss, eq. 9 is

    Omega_k = (|| dE/ds(k+1) ds(k+1)/ds(k) || / || dE/ds(k+1) || - 1)^2:

an error on its way back should neither shrink nor grow. Only the immediate derivative of Omega_k by
the recurrent matrices is followed (eq. 10): states, dE/ds(k+1), and every factor of the Jacobian
ds(k+1)/ds(k) but the matrices themselves are held as they are. For h(k+1) = f(W_hh h(k) + ...) the
row of the numerator is (dE/dh(k+1) * f'(k+1)) W_hh with f' constant, as in the authors' program
(trainingRNNs). For other cells s is the whole state (h and c of an LSTM, side by side; not what is
kept of the input), the Jacobian that of ``Cell.step``, and the matrices all those that ``step``
multiplies by.

As in that program the Omega_k are averaged, not summed: over the sequences and those steps at which
dE/ds(k+1) is more than nothing. The factor then means the same at any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence.trace import Trace, run_traced
from rnncli.nn.state import CellState
from rnncli.sections import RegularizationConfig

SMALLEST = 1e-10
"""Steps whose dE/ds has a smaller norm do not count; the authors' program has the same bound."""


def run_with_omega(
    cell: Cell,
    x: Tensor,
    state: CellState,
    weights: Mapping[str, Tensor],
    factor: float,
    *,
    engine: str,
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:
    """As ``rnncli.nn.recurrence.run``; the backward pass will add ``factor`` times the derivative
    of Omega to the gradients of ``weights``."""
    watched = {name: weight.view_as(weight) for name, weight in weights.items()}
    y, last, trace = run_traced(cell, x, state, watched, engine=engine, dtype=dtype)
    if len(x) > 1:
        _Backward(trace, watched, factor).watch(trace, watched)
    return y, last


def require_omega(rates: RegularizationConfig, model: nn.Module) -> None:
    """Raise UsageError when Omega is asked for and no cell of ``model`` has a matrix it could act
    on."""
    cells = [module for module in model.modules() if isinstance(module, Cell)]
    learned = (w.requires_grad for cell in cells for w in cell.step_weights().values())
    if rates.omega and not any(learned):
        names = ", ".join(sorted({type(cell).__name__ for cell in cells}))
        raise UsageError(
            f"regularization.omega: {names} has no recurrent matrix that is learned; use omega = "
            "0, or a cell that multiplies its state by one"
        )


class _Backward:
    """What the backward pass of one run leaves, and what is made of it.

    The gradients of the states come in, last step first; when that of a weight is complete, so are
    they. Nothing here is in the graph, which holds on to this object.
    """

    def __init__(self, trace: Trace, weights: Mapping[str, Tensor], factor: float) -> None:
        self.cell, self.factor = trace.cell, factor
        self.projected = trace.projected[1:].detach()
        self.before = [
            torch.stack([part.detach() for part in parts])
            for parts in zip(*trace.states[1:-1], strict=True)
        ]
        self.weights = {name: weight.detach() for name, weight in weights.items()}
        self.learned = [name for name, weight in weights.items() if weight.requires_grad]
        self.carried = carried_parts(self.cell)
        self.gradients = [torch.zeros_like(self.before[part]) for part in self.carried]
        self.found: dict[str, Tensor] = {}

    def watch(self, trace: Trace, weights: Mapping[str, Tensor]) -> None:
        """Ask for the gradients of the states after steps 2 ... T and of the weights."""
        for k, state in enumerate(trace.states[2:]):
            for number, part in enumerate(self.carried):
                if state[part].requires_grad:
                    state[part].register_hook(partial(self._keep, number, k))  # type: ignore[no-untyped-call]
        for name in self.learned:
            weights[name].register_hook(partial(self._add, name))  # type: ignore[no-untyped-call]

    def _keep(self, number: int, k: int, gradient: Tensor) -> None:
        self.gradients[number][k] = gradient.detach()

    def _add(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of E by a weight, with that of Omega."""
        if name not in self.found:
            _, parts = omega(
                self.cell, self.weights, self.learned, self.projected, self.before, self.gradients
            )
            self.found = dict(zip(self.learned, parts, strict=True))
        return gradient + self.factor * self.found.pop(name)


def carried_parts(cell: Cell) -> list[int]:
    """The parts of the state that errors come back through."""
    return [part for part, kind in enumerate(cell.part_kinds) if kind != "input"]


def omega(
    cell: Cell,
    weights: Mapping[str, Tensor],
    learned: list[str],
    projected: Tensor,
    before: list[Tensor],
    gradients: list[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Omega (a scalar) and its immediate derivatives by the matrices ``learned``.

    projected: (N, B, G), what goes into N steps; before: the parts of the state before each,
    (N, B, H); gradients: dE by those ``carried_parts`` of the state after each, (N, B, H).
    """
    leaves = {name: w.clone().requires_grad_(name in learned) for name, w in weights.items()}
    parts_before = tuple(part.flatten(0, 1) for part in before)
    carried = carried_parts(cell)
    states = [parts_before[part].requires_grad_() for part in carried]
    after_gradients = [part.flatten(0, 1) for part in gradients]
    with torch.enable_grad():
        after = cell.step(
            projected.flatten(0, 1), parts_before, lambda name, v: _held_product(v, leaves[name])
        )
        pairs = [
            (after[part], g)
            for part, g in zip(carried, after_gradients, strict=True)
            if after[part].requires_grad
        ]
        found = torch.autograd.grad(
            [part for part, _ in pairs], states, [g for _, g in pairs], create_graph=True,
            allow_unused=True,
        )  # fmt: skip
        back = [torch.zeros_like(s) if d is None else d for d, s in zip(found, states, strict=True)]
        size = torch.cat(after_gradients, 1).norm(dim=1)
        counted = size > SMALLEST
        ratio = torch.linalg.vector_norm(torch.cat(back, 1), dim=1)[counted] / size[counted]
        value = (ratio - 1).pow(2).sum() / counted.sum().clamp_min(1)
        wanted = [leaves[name] for name in learned]
        parts: Any = [None] * len(wanted)
        if wanted and value.requires_grad:
            parts = torch.autograd.grad(value, wanted, allow_unused=True)
    return value.detach(), [
        torch.zeros_like(w) if d is None else d for d, w in zip(parts, wanted, strict=True)
    ]


class _HeldProduct(torch.autograd.Function):
    """W v, in whose derivative by v the matrix is a variable, and in whose value it is not."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(v, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight, None


def _held_product(v: Tensor, weight: Tensor) -> Tensor:
    return cast(Tensor, _HeldProduct.apply(v, weight))  # type: ignore[no-untyped-call]
