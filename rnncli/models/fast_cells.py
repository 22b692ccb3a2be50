"""One time step of a cell on packed weights, in as few operations as there are.

The equations are those of ``rnncli.nn.cells``, to which any cell without a form of its own here is
left; the tests hold the two together.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rnncli.models.packed import pack
from rnncli.nn.cells.base import NONLINEARITIES, Cell
from rnncli.nn.cells.elman import Elman
from rnncli.nn.cells.gru import GRU
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.state import CellState


class FastCell(Protocol):
    """The part of a cell that depends on the state, and the order of the rows it wants."""

    def rows(self, weight: Tensor) -> Tensor:
        """The rows of W_xh or a (or columns of a table, last) in this form's order."""
        ...

    def step(self, projected: Tensor, state: CellState) -> CellState:
        """projected: (B, G), not to be changed; state: parts of (B, H) -> the next state."""
        ...


class FastLSTM:
    """Rows i, f, o, g instead of i, f, g, o: one sigmoid for three gates."""

    def __init__(self, cell: LSTM, precision: str) -> None:
        self.size = cell.hidden_size
        self.W_hh = pack(self.rows(cell.W_hh), None, precision)

    def rows(self, weight: Tensor) -> Tensor:
        i, f, g, o = weight.chunk(4)
        return torch.cat([i, f, o, g])

    def step(self, projected: Tensor, state: CellState) -> CellState:
        h, c = state
        gates, g = self.W_hh.add(projected, h).split_with_sizes((3 * self.size, self.size), 1)
        i, f, o = gates.sigmoid_().chunk(3, 1)
        c = (i * g.tanh_()).addcmul_(f, c)
        return o * torch.tanh(c), c


class FastGRU:
    def __init__(self, cell: GRU, precision: str) -> None:
        self.sizes = (2 * cell.hidden_size, cell.hidden_size)
        bias = torch.cat([torch.zeros_like(cell.a[: self.sizes[0]]), cell.a_n])
        self.W_hh = pack(cell.W_hh, bias, precision)

    def rows(self, weight: Tensor) -> Tensor:
        return weight

    def step(self, projected: Tensor, state: CellState) -> CellState:
        (h,) = state
        gates, candidate = self.W_hh(h).split_with_sizes(self.sizes, 1)
        gates_x, candidate_x = projected.split_with_sizes(self.sizes, 1)
        r, z = gates.add_(gates_x).sigmoid_().chunk(2, 1)
        n = torch.addcmul(candidate_x, r, candidate).tanh_()
        return (torch.lerp(n, h, z),)


class FastElman:
    def __init__(self, cell: Elman, precision: str) -> None:
        self.f = NONLINEARITIES[cell.nonlinearity]
        self.W_hh = pack(cell.W_hh, None, precision)

    def rows(self, weight: Tensor) -> Tensor:
        return weight

    def step(self, projected: Tensor, state: CellState) -> CellState:
        return (self.f(self.W_hh.add(projected, state[0])),)


class AnyCell:
    """A cell's own ``step`` on packed recurrent matrices."""

    def __init__(self, cell: Cell, precision: str) -> None:
        self.cell = cell
        self.packed = {
            name: pack(weight, None, precision) for name, weight in cell.step_weights().items()
        }

    def rows(self, weight: Tensor) -> Tensor:
        return weight

    def step(self, projected: Tensor, state: CellState) -> CellState:
        return self.cell.step(projected, state, lambda name, v: self.packed[name](v))


def fast_cell(cell: Cell, precision: str) -> FastCell:
    """``cell`` for single steps. Raises UsageError as ``pack`` does."""
    if type(cell) is LSTM:
        return FastLSTM(cell, precision)
    if type(cell) is GRU:
        return FastGRU(cell, precision)
    if type(cell) is Elman:
        return FastElman(cell, precision)
    return AnyCell(cell, precision)
