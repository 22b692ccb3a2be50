"""Recurrent highway networks (Zilly, Srivastava, Koutník, Schmidhuber 2017, arXiv:1607.03474)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class RecurrentHighway(Cell):
    """A transition of L = ``transition_depth`` highway layers (sec. 3, eqs. 6 to 9).

    From s_0 = h(t-1), with [l = 1] for what only the first layer has:
    h_l = tanh(W_H x(t) [l = 1] + R_Hl s_(l-1) + b_Hl),
    t_l = sigmoid(W_T x(t) [l = 1] + R_Tl s_(l-1) + b_Tl),
    c_l likewise, or 1 - t_l with ``coupled_gates``,
    s_l = h_l * t_l + s_(l-1) * c_l;  h(t) = s_L.

    Rows of the matrices: H, T and, if it has its own, C. W_hh is that of the first layer, R_2 ...
    R_L follow, a and a_2 ... a_L are the biases. ``transform_bias`` is where b_T starts: below
    zero, so that at first a layer hands most of its state on (sec. 5); b_C starts at its opposite.
    ``layer_norm`` normalises each product, the candidate's rows by themselves and the gates'
    together.
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        self.depth: int = options["transition_depth"]
        self.coupled: bool = options["coupled_gates"]
        self.gates = 2 if self.coupled else 3
        self.transform_bias: float = options["transform_bias"]
        super().__init__(config, options, input_size, hidden_size)
        rows = self.gates * hidden_size
        for layer in range(2, self.depth + 1):
            matrix = nn.Parameter(torch.empty(rows, hidden_size))
            self.register_parameter(f"R_{layer}", matrix)
            self.register_parameter(f"a_{layer}", nn.Parameter(torch.empty(rows)))
        self.reset_parameters(config)

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"] if self.coupled else None

    def recurrent_weights(self) -> dict[str, Tensor]:
        above = {f"R_{n}": getattr(self, f"R_{n}") for n in range(2, self.depth + 1)}
        return {"W_hh": self.W_hh, **above}

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """H by itself, the gates together."""
        H, gates = self.hidden_size, self.gates - 1
        return dict.fromkeys(super().norm_groups(), (H, gates * H))

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        H = self.hidden_size
        with torch.no_grad():
            for layer in range(1, self.depth + 1):
                bias = self.a if layer == 1 else getattr(self, f"a_{layer}")
                bias[H : 2 * H] = self.transform_bias
                bias[2 * H :] = -self.transform_bias

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        (s,) = state
        for layer in range(1, self.depth + 1):
            h, gates = self._sums(layer, s, projected, product)
            if self.coupled:
                s = torch.lerp(s, h, gates)  # t h + (1 - t) s
            else:
                t, c = gates.chunk(2, dim=1)
                s = torch.addcmul(h * t, s, c)
        return (s,)

    def gates_of(
        self, layer: int, s: Tensor, projected: Tensor, product: Product
    ) -> tuple[Tensor, Tensor, Tensor]:
        """h, t and c of a layer, counted from 1, that reads ``s`` (B, H): each (B, H)."""
        h, gates = self._sums(layer, s, projected, product)
        t, *others = gates.chunk(1 if self.coupled else 2, dim=1)
        return h, t, others[0] if others else 1.0 - t

    def _sums(
        self, layer: int, s: Tensor, projected: Tensor, product: Product
    ) -> tuple[Tensor, Tensor]:
        """h of a layer (B, H), and its gates side by side."""
        if layer == 1:
            v = product("W_hh", s) + projected
        else:
            v = product(f"R_{layer}", s) + getattr(self, f"a_{layer}")
        h, gates = v.split_with_sizes((self.hidden_size, v.shape[1] - self.hidden_size), 1)
        return torch.tanh(h), torch.sigmoid(gates)
