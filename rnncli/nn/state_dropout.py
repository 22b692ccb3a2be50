"""Dropout of the state that a cell's matrices multiply (Gal and Ghahramani 2016, sec. 4)."""

from __future__ import annotations

import re

from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.cells.wrapper import Wrapper
from rnncli.nn.dropout import keep_mask
from rnncli.nn.state import CellState


class StateDropout(Wrapper):
    """``cell`` for one run over time: its recurrent matrices see the state without some units.

    The mask (B, H) is the same for all time steps, and for all matrices that multiply one part of
    the state, as in the recurrent highway network's program; what hands the state on otherwise, a
    gate or a sum, sees all of it.
    """

    draws_by_step = True

    def __init__(self, cell: Cell, rate: float) -> None:
        super().__init__(cell)
        self.rate = rate
        self._masked = frozenset(cell.recurrent_weights())
        self._masks: dict[tuple[str, str, int], Tensor] = {}

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        def dropped(name: str, v: Tensor) -> Tensor:
            return product(f"cell.{name}", self._dropped(name, v) if name in self._masked else v)

        return self.cell.step(projected, state, dropped)

    def _dropped(self, name: str, v: Tensor) -> Tensor:
        return v * self.mask(name, v)

    def mask(self, name: str, v: Tensor) -> Tensor:
        """Of the part of the state that the matrix ``name`` of the inner cell multiplies, (B, H) as
        ``v`` is."""
        part = (*_part(name), v.shape[1])
        if part not in self._masks:
            self._masks[part] = keep_mask(v.shape, self.rate, v)
        return self._masks[part]


def _part(name: str) -> tuple[str, str]:
    """Which part of the state the matrix ``name`` multiplies: that of a layer of several in one
    cell, the output fed back by attention, the slow cell's; or the only one."""
    layer, matrix = re.search(r"cells\.\d+", name), name.rpartition(".")[2]
    return layer.group() if layer else "", matrix if matrix in ("W_f", "W_S") else ""
