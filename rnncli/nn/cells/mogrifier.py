"""The Mogrifier LSTM (Melis, Kocisky and Blunsom 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import Product
from rnncli.nn.cells.initialization import fill
from rnncli.nn.cells.lstm_variants import VariantLSTM
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class Mogrifier(VariantLSTM):
    """An LSTM whose input and state gate each other before it reads them (sec. 2, eqs. 1 and 2):

    x^i = 2 sigmoid(Q^i h^(i-1)) * x^(i-2) for odd i, h^i = 2 sigmoid(R^i x^(i-1)) * h^(i-2) for
    even i, i = 1 ... ``rounds``; no rounds are the LSTM. ``rank`` k makes each Q^i and R^i a
    product of two matrices, Q^i_left (I, k) and Q^i_right (k, H); 0: they are whole.
    ``coupled_gates`` caps the input gate at what the forget gate leaves, i = min(i, 1 - f), as the
    authors' tuned models do. Since x depends on the state, W_xh x waits for the step before.
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, {**options, "coupled_gates": False}, input_size, hidden_size)
        self.capped: bool = options["coupled_gates"]
        self.rounds: int = options["rounds"]
        self.rank: int = options["rank"]
        sizes = (self.input_size, self.output_size)
        for i in range(1, self.rounds + 1):
            gated, gating = sizes if i % 2 else sizes[::-1]
            shapes = {f"{self._letter(i)}{i}": (gated, gating)}
            if self.rank:
                (name,) = shapes
                shapes = {f"{name}_left": (gated, self.rank), f"{name}_right": (self.rank, gating)}
            for name, shape in shapes.items():
                weight = nn.Parameter(torch.empty(shape))
                fill(weight, config)
                setattr(self, name, weight)

    @staticmethod
    def _letter(i: int) -> str:
        """The paper's name of the matrix of round i."""
        return "Q" if i % 2 else "R"

    def step_weights(self) -> dict[str, Tensor]:
        gating = {n: p for n, p in self.named_parameters(recurse=False) if n[0] in "QR"}
        return {**super().step_weights(), "W_xh": self.W_xh, **gating}

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        """x: (T, B, I) as it is."""
        return x.to(self.W_xh.dtype)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        return super().step(*self.mogrified(projected, state, product), product)

    def mogrified(
        self, projected: Tensor, state: CellState, product: Product
    ) -> tuple[Tensor, CellState]:
        """What the LSTM's own step reads after the rounds: W_xh x + a, and the state."""
        x, (h, c) = projected, state
        for i in range(1, self.rounds + 1):
            if i % 2:
                x = 2.0 * torch.sigmoid(self._product(i, h, product)) * x
            else:
                h = 2.0 * torch.sigmoid(self._product(i, x, product)) * h
        return self.sums(product("W_xh", x)), (h, c)

    def _product(self, i: int, v: Tensor, product: Product) -> Tensor:
        """v: (B, H) or (B, I) -> Q^i v: (B, I), or R^i v: (B, H)."""
        name = f"{self._letter(i)}{i}"
        if not self.rank:
            return product(name, v)
        return product(f"{name}_left", product(f"{name}_right", v))

    def input_gate(self, i: Sequence[Tensor], forget: Tensor, c: Tensor) -> Tensor:
        gate = super().input_gate(i, forget, c)
        return torch.minimum(gate, 1.0 - forget) if self.capped else gate
