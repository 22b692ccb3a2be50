"""What a layer makes of its preactivation: saturating units, rectifiers, maxout, Lp units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.cells.base import NONLINEARITIES, Cell

_SMALLEST = 1e-12
"""Under a root, whose derivative at 0 is infinite."""


@dataclass(frozen=True)
class Units:
    """f of a layer: ``pieces`` parts of a preactivation (..., pieces n), one after the other, give
    n values.

    maxout: the largest of the pieces (Goodfellow et al. 2013). lp: the pieces' p-norm, as a mean,
    (mean of |v|^p)^(1/p), with p = 1 + log(1 + e^rho) learned for each unit (Gulcehre et al. 2013).
    """

    kind: str
    pieces: int

    @classmethod
    def of(cls, kind: str, options: Mapping[str, Any]) -> Units:
        return cls(kind, options["maxout_pieces"] if kind in ("maxout", "lp") else 1)

    def rho(self, size: int) -> nn.Parameter | None:
        """(n,): what the units learn beside their weights, if anything; to be filled."""
        return nn.Parameter(torch.empty(size)) if self.kind == "lp" else None

    def __call__(self, v: Tensor, rho: Tensor | None = None) -> Tensor:
        """v: (..., pieces n), rho: (n,) for Lp units -> (..., n)."""
        if self.kind == "maxout":
            return reduce(torch.maximum, v.chunk(self.pieces, dim=-1))
        if self.kind == "lp":
            assert rho is not None
            p = 1.0 + F.softplus(rho)
            total = sum(part.abs() ** p for part in v.chunk(self.pieces, dim=-1))
            return (total / self.pieces + _SMALLEST) ** (1.0 / p)
        return NONLINEARITIES[self.kind](v)


def start_with_euclidean_units(module: nn.Module) -> None:
    """Set every rho of ``module`` so that p is 2."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.rpartition(".")[2].startswith("rho"):
                parameter.fill_(math.log(math.e - 1.0))


class Layers(nn.ModuleList):
    """A feedforward network, layer by layer f(W x + a), for all time steps at once."""

    def __init__(self, depth: int, input_size: int, size: int, units: Units) -> None:
        sizes = [input_size, *(size,) * depth]
        super().__init__(_Layer(i, o, units) for i, o in pairwise(sizes))

    def run(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x: (T, B, I) -> (T, B, size), products in ``dtype``."""
        for layer in self:
            x = layer(x, dtype)
        return x


class _Layer(nn.Module):
    def __init__(self, input_size: int, size: int, units: Units) -> None:
        super().__init__()
        self.units = units
        self.W = nn.Parameter(torch.empty(size * units.pieces, input_size))
        self.a = nn.Parameter(torch.empty(size * units.pieces))
        self.rho = units.rho(size)

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.units(Cell.linear(x, self.W, self.a, dtype), self.rho)
