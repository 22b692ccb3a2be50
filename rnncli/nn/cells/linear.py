"""What recurrences that are linear in their state have in common."""

from __future__ import annotations

from torch import Tensor

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.state import CellState


class LinearCell(Cell):
    """h(t) = f(t) * h(t-1) + b(t), where f and b do not depend on the state: no product waits for
    the step before. Subclasses write ``coefficients``."""

    recurrent = False

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """The rows of each gate and of the candidate by themselves."""
        return {"W_xh": (self.hidden_size,) * self.gates}

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """projected: (..., G) -> f and b, each (..., H)."""
        raise NotImplementedError(type(self).__name__)

    def rest(self, projected: Tensor) -> CellState:
        """projected: (B, G) of a step -> the parts of its state after h."""
        return ()

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        f, b = self.coefficients(projected)
        return (f * state[0] + b, *self.rest(projected))
