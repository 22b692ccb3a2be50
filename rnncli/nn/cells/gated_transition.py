"""Deep transitions of gated cells: more of them from one state to the next.

Miceli Barone et al. 2017, deep transition architecture, as Nematus has them (Sennrich et al.
2017): the first cell of a time step reads the input and the state, each further one only the state
that the one before has left, with weights of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.cells.wrapper import Wrapper
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def with_depth(
    cls: type[Cell],
    config: ModelConfig,
    options: Mapping[str, Any],
    input_size: int,
    hidden_size: int,
) -> Cell:
    """A cell of class ``cls``, with ``transition_depth`` - 1 more steps of its kind."""
    cell = cls(config, options, input_size, hidden_size)
    further = [cls(config, options, 0, hidden_size) for _ in range(options["transition_depth"] - 1)]
    return GatedTransition(cell, further) if further else cell


class GatedTransition(Wrapper):
    """s(t, 1) = cell(x(t), s(t-1, L));  s(t, k) = further[k](s(t, k-1)), k = 2 ... L.

    s is the whole state, with the c of an LSTM. The output is that of the last cell.
    """

    def __init__(self, cell: Cell, further: list[Cell]) -> None:
        """``further``: cells like ``cell`` that read nothing (``input_size`` 0)."""
        super().__init__(cell)
        self.further = nn.ModuleList(further)

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {
            f"{prefix}{name}": weight
            for prefix, cell in self.steps()
            for name, weight in cell.recurrent_weights().items()
        }

    def step_weights(self) -> dict[str, Tensor]:
        return {
            f"{prefix}{name}": weight
            for prefix, cell in self.steps()
            for name, weight in cell.step_weights().items()
        }

    def steps(self) -> list[tuple[str, Cell]]:
        """Each cell in its order, after the prefix of its parameters' names."""
        further = [(f"further.{k}.", cast(Cell, cell)) for k, cell in enumerate(self.further)]
        return [("cell.", self.cell), *further]

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        for prefix, cell in self.steps():
            if cell is not self.cell:
                projected = cell.a.expand(len(projected), -1)
            state = cell.step(projected, state, _named(product, prefix))
        return state


def _named(product: Product, prefix: str) -> Product:
    """``product`` for a cell whose parameters' names here begin with ``prefix``."""
    return lambda name, v: product(prefix + name, v)
