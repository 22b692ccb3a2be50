"""Recurrent layers made ready for one time step after the other, on weights laid out for it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rnncli.models.fast_cells import FastCell, fast_cell
from rnncli.models.packed import pack
from rnncli.nn.cells.base import Cell
from rnncli.nn.stack import Stack
from rnncli.nn.state import CellState, State

Project = Callable[[Tensor, CellState], Tensor]
"""x (B, I), or tokens (B,) in the first layer, and the state before -> projected (B, G)."""


class PreparedStack:
    """The steps of a stack whose layers do not read ahead. The weights are copied."""

    def __init__(self, stack: Stack, precision: str) -> None:
        """Raises UsageError for a precision that this machine does not have."""
        self._stack = stack
        self.cells = [fast_cell(cell, precision) for cell in stack.layers]
        self.inputs = [
            _input(cell, fast, precision)
            for cell, fast in zip(stack.layers, self.cells, strict=True)
        ]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x: (B, I), or what ``inputs[0]`` takes -> the last layer's output (B, output_size) and
        the next state."""
        layers = []
        for k, (project, cell, before) in enumerate(
            zip(self.inputs, self.cells, state.layers, strict=True)
        ):
            projected = project(x, before)
            after = cell.step(projected, before)
            layers.append(after)
            x = self._stack.output_of_step(k, x, projected, after[0])
        return x, State(tuple(layers))


def _input(cell: Cell, fast: FastCell, precision: str) -> Project:
    """What of the cell's equations does not depend on the state's first part."""
    if cell.projects_plainly:
        packed = pack(fast.rows(cell.W_xh), fast.rows(cell.a), precision)
        return lambda x, state: packed(x)
    if cell.reads_by_matrix:
        product = pack(fast.rows(cell.input_matrix), None, precision)
        return lambda x, state: cell.sums(product(x))
    return lambda x, state: cell.project(x.unsqueeze(0), state, x.dtype).squeeze(0)
