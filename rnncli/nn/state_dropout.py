"""Dropout of the state that a cell's matrices multiply (Gal and Ghahramani 2016, sec. 4)."""

from __future__ import annotations

from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.cells.wrapper import Wrapper
from rnncli.nn.dropout import keep_mask
from rnncli.nn.state import CellState


class StateDropout(Wrapper):
    """``cell`` for one run over time: its recurrent matrices see the state without some units.

    The mask (B, H) is the same for all time steps and all matrices that multiply as many units, as
    in the recurrent highway network's program; what hands the state on otherwise, a gate or a sum,
    sees all of it.
    """

    def __init__(self, cell: Cell, rate: float) -> None:
        super().__init__(cell)
        self.rate = rate
        self._masked = frozenset(cell.recurrent_weights())
        self._masks: dict[int, Tensor] = {}

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        def dropped(name: str, v: Tensor) -> Tensor:
            return product(f"cell.{name}", v * self._mask(v) if name in self._masked else v)

        return self.cell.step(projected, state, dropped)

    def _mask(self, v: Tensor) -> Tensor:
        units = v.shape[1]
        if units not in self._masks:
            self._masks[units] = keep_mask(v.shape, self.rate, v)
        return self._masks[units]
