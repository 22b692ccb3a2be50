"""Layer normalisation (Ba, Kiros and Hinton 2016) of a cell's products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.cells.base import Cell, Product
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig

EPSILON = 1e-5  # added to the variance, as in the authors' program


class Norm(nn.Module):
    """v -> g * (v - mu) / sigma (eq. 4), over each of some groups of units by itself.

    There is no bias here: those of a gate's several normalised sums add up to one, the cell's
    ``a``.
    """

    def __init__(self, *sizes: int) -> None:
        """``sizes``: the units of each group, one group after the other."""
        super().__init__()
        self.sizes = sizes
        self.g = nn.Parameter(torch.ones(sum(sizes)))

    def forward(self, v: Tensor) -> Tensor:
        """v: (..., sum of sizes) -> the same shape."""
        parts, gains = v.split_with_sizes(self.sizes, -1), self.g.split_with_sizes(self.sizes)
        normal = [
            F.layer_norm(part, part.shape[-1:], g, None, EPSILON)
            for part, g in zip(parts, gains, strict=True)
        ]
        return normal[0] if len(normal) == 1 else torch.cat(normal, dim=-1)


class LayerNormalized(Cell):
    """To be placed before a cell's class: whatever its matrices give is normalised first.

    The input's product and the state's are normalised each by itself (supplementary
    material), so that neither the size of a matrix nor that of what it multiplies changes a gate.
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        groups = self.norm_groups()
        self.norms = nn.ModuleDict({name: Norm(*rows) for name, rows in groups.items()})

    @property
    def sums_plainly(self) -> bool:
        return False

    def sums(self, v: Tensor) -> Tensor:
        """g * LN(W_xh x) + a."""
        normal: Tensor = self.norms["W_xh"](v)
        return normal + self.a

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        return super().step(projected, state, lambda name, v: self.norms[name](product(name, v)))


def layer_normalized(cls: type[Cell]) -> type[Cell]:
    """``cls`` with ``LayerNormalized`` before it, always the same class."""
    if cls not in _CLASSES:
        made = type(f"Normalized{cls.__name__}", (LayerNormalized, cls), {})
        _CLASSES[cls] = cast("type[Cell]", made)
    return _CLASSES[cls]


_CLASSES: dict[type[Cell], type[Cell]] = {}
