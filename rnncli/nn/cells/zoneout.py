"""Zoneout: units that keep their value of the step before (Krueger et al. 2017, sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.cells.wrapper import Wrapper
from rnncli.nn.dropout import keep_mask
from rnncli.nn.state import CellState


class Zoneout(Wrapper):
    """Any cell, whose state keeps a random part of itself: s(t) = d * s(t-1) + (1 - d) * s~(t).

    d is drawn anew for every unit and step in training, and is its mean in evaluation. ``rate`` is
    that of h, ``cell_rate`` that of cells; what no recurrence runs through is never zoned out. The
    new h is made from the new cell before zoneout, as the paper has it.
    """

    draws_by_step = True

    def __init__(self, cell: Cell, rate: float, cell_rate: float) -> None:
        super().__init__(cell)
        of_kind = {"hidden": rate, "cell": cell_rate}
        self.rates = tuple(of_kind.get(kind, 0.0) for kind in cell.part_kinds)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        fresh = self.cell.step(projected, state, lambda name, v: product(f"cell.{name}", v))
        return tuple(
            self._mix(new, old, rate)
            for new, old, rate in zip(fresh, state, self.rates, strict=True)
        )

    def _mix(self, new: Tensor, old: Tensor, rate: float) -> Tensor:
        if rate == 0.0:
            return new
        if self.training:
            return torch.where(keep_mask(new.shape, rate, new) > 0, new, old)
        return torch.lerp(new, old, rate)
