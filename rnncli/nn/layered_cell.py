"""Several layers as one cell, for whoever stands above the last and is read by the first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.dropout import keep_mask
from rnncli.nn.state import CellState


class LayeredCell(Cell):
    """Layer l reads h of layer l - 1 at the same time step. ``project`` is the first layer's.

    The state has the parts of the last layer first, so that its first part is the output; after the
    parts of all layers, what each layer but the last is multiplied by on its way up: a mask of
    dropout (B, H), the same at all steps, or (B, 0) for none.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        """``cells``: first layer first. Raises UsageError for one that cannot stand in a step."""
        nn.Module.__init__(self)
        self.cells = nn.ModuleList(cells)
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.gates = cells[0].gates
        self.state_parts = sum(cell.state_parts for cell in cells) + len(cells) - 1
        if not all(cell.emits_h and cell.reads_by_matrix for cell in cells):
            raise UsageError(
                "model.look_up: 'feeding' runs all layers at every step, and this cell's output is "
                "not its state, or its input not read through a matrix; use 'after'"
            )

    @property
    def layers(self) -> list[Cell]:
        """First layer first."""
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    @property
    def output_size(self) -> int:
        return self.layers[-1].output_size

    @property
    def part_kinds(self) -> tuple[str, ...]:
        kinds = [kind for cell in reversed(self.layers) for kind in cell.part_kinds]
        return (*kinds, *("input",) * (len(self.cells) - 1))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        sizes = [size for cell in reversed(self.layers) for size in cell.state_sizes]
        return (*sizes, *(0,) * (len(self.cells) - 1))

    @property
    def reads_by_matrix(self) -> bool:
        return True

    @property
    def input_matrix(self) -> Tensor:
        return self.layers[0].input_matrix

    @property
    def sums_plainly(self) -> bool:
        return self.layers[0].sums_plainly

    def sums(self, v: Tensor) -> Tensor:
        return self.layers[0].sums(v)

    def first_state(self, states: Sequence[CellState], dropout: float) -> CellState:
        """``states``: of the layers, first layer first, parts of (B, H) -> that of all."""
        parts = [part for state in reversed(states) for part in state]
        masks = []
        for cell, state in zip(self.layers[:-1], states, strict=False):
            B, like = len(state[0]), state[0]
            shape = (B, cell.output_size)
            masks.append(keep_mask(shape, dropout, like) if dropout else like.new_zeros(B, 0))
        return (*parts, *masks)

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        return self.layers[0].project(x, state, dtype)

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {
            f"cells.{k}.{name}": weight
            for k, cell in enumerate(self.layers)
            for name, weight in cell.recurrent_weights().items()
        }

    def step_weights(self) -> dict[str, Tensor]:
        weights = self.recurrent_weights()
        for k, cell in enumerate(self.layers):
            own = {"W_xh": cell.input_matrix} if k else {}
            for name, weight in {**cell.step_weights(), **own}.items():
                weights[f"cells.{k}.{name}"] = weight
        return weights

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        end = len(state) - len(self.cells) + 1
        masks, after, h = state[end:], state[end:], state[0]
        for k, cell in enumerate(self.layers):

            def own(name: str, v: Tensor, k: int = k) -> Tensor:
                return product(f"cells.{k}.{name}", v)

            if k:
                read = h * masks[k - 1] if masks[k - 1].shape[1] else h
                projected = cell.sums(own("W_xh", read))
            parts = len(cell.part_kinds)
            state_of_layer = cell.step(projected, state[end - parts : end], own)
            h, end = state_of_layer[0], end - parts
            after = (*state_of_layer, *after)
        return after
