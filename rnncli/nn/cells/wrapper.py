"""A cell around another one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import Cell, Range
from rnncli.nn.state import CellState


class Wrapper(Cell):
    """Has ``cell``'s sizes, projection and outputs, and its matrices as ``cell.NAME``. Subclasses
    write ``step``."""

    def __init__(self, cell: Cell) -> None:
        nn.Module.__init__(self)
        self.cell = cell
        self.input_size, self.hidden_size = cell.input_size, cell.hidden_size
        self.gates, self.state_parts = cell.gates, cell.state_parts

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

    @property
    def h_range(self) -> Range | None:
        return self.cell.h_range

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {f"cell.{name}": w for name, w in self.cell.recurrent_weights().items()}

    def gate_rows(self, weight: Tensor) -> int:
        return self.cell.gate_rows(weight)

    def step_weights(self) -> dict[str, Tensor]:
        return {f"cell.{name}": w for name, w in self.cell.step_weights().items()}

    @property
    def reads_by_matrix(self) -> bool:
        return type(self).project is Wrapper.project and self.cell.reads_by_matrix

    @property
    def projects_plainly(self) -> bool:
        return False

    @property
    def input_matrix(self) -> Tensor:
        return self.cell.input_matrix

    @property
    def sums_plainly(self) -> bool:
        return self.cell.sums_plainly

    def sums(self, v: Tensor) -> Tensor:
        return self.cell.sums(v)

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        return self.cell.project(x, state, dtype)

    def emit(self, h: Tensor, x: Tensor, projected: Tensor, dtype: torch.dtype) -> Tensor:
        return self.cell.emit(h, x, projected, dtype)
