"""A run over time that keeps the state of every step, for whoever wants the gradients of each.

A state is handed from one step to the next in a tensor of its own, so that its gradient is that of
everything after the step that made it: what the same step's output owes to its own cell (an LSTM's
h(t) to c(t)) is not counted a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.recurrence.deferred import DeferredProducts
from rnncli.nn.state import CellState


@dataclass(frozen=True)
class Trace:
    """A cell's run. ``projected``: (T, B, G). ``states``: the one before the first step and those
    after each, T + 1 in the order in which the cell met them, parts of (B, H), in the graph.
    ``outputs``: (T, B, output_size), what it emitted, in the same order."""

    cell: Cell
    projected: Tensor
    states: list[CellState]
    outputs: Tensor


def run_traced(
    cell: Cell,
    x: Tensor,
    state: CellState,
    weights: Mapping[str, Tensor],
    *,
    engine: str,
    dtype: torch.dtype,
) -> tuple[Tensor, CellState, Trace]:
    """As ``rnncli.nn.recurrence.run``, with the trace of it; the engine reference, or deferred for
    any other name."""
    projected = cell.project(x, state, dtype)
    product = _product(engine, weights, dtype)
    states = [_handed_on(state)]
    for step_input in projected.unbind(0):
        states.append(_handed_on(cell.step(step_input, states[-1], product)))
    h = torch.stack([after[0] for after in states[1:]])
    y = h if cell.emits_h else cell.emit(h, x, projected, dtype)
    return y, states[-1], Trace(cell, projected, states, y)


def _handed_on(state: CellState) -> CellState:
    return tuple(part.view_as(part) for part in state)


def _product(engine: str, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Product:
    if engine == "reference":
        cast = {name: weight.to(dtype) for name, weight in weights.items()}
        return lambda name, v: F.linear(v.to(dtype), cast[name]).to(v.dtype)
    products = {name: DeferredProducts(weight, dtype) for name, weight in weights.items()}
    return lambda name, v: products[name](v)
