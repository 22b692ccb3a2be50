"""Zoneout: units that keep their value of the step before (Krueger et al. 2017, sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.dropout import keep_mask
from rnncli.nn.state import CellState


class Zoneout(Cell):
    """Any cell, whose state keeps a random part of itself: s(t) = d * s(t-1) + (1 - d) * s~(t).

    d is drawn anew for every unit and step in training, and is its mean in evaluation. ``rate`` is
    that of h, ``cell_rate`` that of cells; what a state keeps of the input is never zoned out. The
    new h is made from the new cell before zoneout, as the paper has it.
    """

    elementwise = False  # what is drawn cannot be drawn again

    def __init__(self, cell: Cell, rate: float, cell_rate: float) -> None:
        nn.Module.__init__(self)
        self.cell = cell
        self.input_size, self.hidden_size = cell.input_size, cell.hidden_size
        self.state_parts = cell.state_parts
        of_kind = {"hidden": rate, "cell": cell_rate, "input": 0.0}
        self.rates = tuple(of_kind[kind] for kind in cell.part_kinds)

    @property
    def output_size(self) -> int:
        return self.cell.output_size

    @property
    def part_kinds(self) -> tuple[str, ...]:
        return self.cell.part_kinds

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.cell.state_sizes

    @property
    def emits_h(self) -> bool:
        return self.cell.emits_h

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {f"cell.{name}": w for name, w in self.cell.recurrent_weights().items()}

    def step_weights(self) -> dict[str, Tensor]:
        return {f"cell.{name}": w for name, w in self.cell.step_weights().items()}

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        return self.cell.project(x, state, dtype)

    def emit(self, h: Tensor, x: Tensor, projected: Tensor, dtype: torch.dtype) -> Tensor:
        return self.cell.emit(h, x, projected, dtype)

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
