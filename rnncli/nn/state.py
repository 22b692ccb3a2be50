"""The state of a recurrent network between two calls: passed and returned, never kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

CellState = tuple[Tensor, ...]
"""What one layer remembers: (h,) or (h, c), each (B, H)."""


@dataclass(frozen=True)
class State:
    """One ``CellState`` a layer, first layer first."""

    layers: tuple[CellState, ...]

    def select(self, rows: Tensor) -> State:
        """The state of ``rows`` (int64, any length, repeats allowed), in that order."""
        return State(tuple(tuple(s.index_select(0, rows) for s in layer) for layer in self.layers))

    def regroup(self, rows: Tensor, sources: Tensor | None) -> State:
        """``select``: nothing here belongs to a source."""
        return self.select(rows)

    def detach(self) -> State:
        """The same values, cut from the graph: where truncated BPTT stops."""
        return State(tuple(tuple(s.detach() for s in layer) for layer in self.layers))

    def where(self, keep: Tensor, other: State) -> State:
        """Row by row this state where ``keep`` (B,) is true, else ``other``."""
        mask = keep.unsqueeze(1)
        pairs = zip(self.layers, other.layers, strict=True)
        return State(
            tuple(
                tuple(torch.where(mask, a, b) for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in pairs
            )
        )

    def tensors(self) -> list[Tensor]:
        """All parts in a fixed order, for saving."""
        return [s for layer in self.layers for s in layer]


def state_to_tensors(state: State | None) -> dict[str, Tensor]:
    """Numbered parts, for a file; nothing for None."""
    return {} if state is None else {f"{k}": part for k, part in enumerate(state.tensors())}


def state_from_tensors(tensors: Mapping[str, Tensor], like: State) -> State | None:
    """What ``state_to_tensors`` made parts of; ``like`` has the same layers, of any rows."""
    if not tensors:
        return None
    device = like.layers[0][0].device
    parts = iter(tensors[f"{k}"].to(device) for k in range(len(tensors)))
    return State(tuple(tuple(next(parts) for _ in layer) for layer in like.layers))
