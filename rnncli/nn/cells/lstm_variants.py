"""The LSTM with what was added to it: coupled gates, a projection, layer normalisation, peepholes.

They are independent of each other; ``rnncli.nn.cells.lstm`` has the plain equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.gated_transition import with_depth
from rnncli.nn.cells.initialization import remember
from rnncli.nn.cells.layer_norm import Norm
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


def lstm_peephole(
    config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
) -> Cell:
    """The LSTM of Graves (2013) with ``options``."""
    return with_depth(PeepholeLSTM, config, options, input_size, hidden_size)


class VariantLSTM(Cell):
    """Gates in the rows of W_xh, W_hh and a: input i (unless coupled), forget f, candidate g,
    output o.

    c(t) = f * c(t-1) + i * g;  m(t) = o * tanh(c(t));  h(t) = m(t), or W_rm m(t).

    ``coupled_gates``: i = 1 - f (CIFG, Greff et al. 2017), with no weights for i.
    ``projection_size`` P: h is the recurrent projection layer r of Sak et al. 2014 (LSTMP), of P
    units, and ``hidden_size`` H the number of cells; W_hh is (G, P), W_rm (P, H).
    ``layer_norm``: Ba et al. 2016, eqs. 20 to 22; the gates are LN(W_hh h) + LN(W_xh x) + a, all of
    them normalised together, and m = o * tanh(LN(c) + b_c).
    """

    state_parts = 2
    normalizes_itself = True

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        self.gates = 3 if options["coupled_gates"] else 4
        super().__init__(config, options, input_size, hidden_size)
        self.projection_size: int = options["projection_size"]
        if self.projection_size:
            rows = self.gates * hidden_size
            self.W_hh = nn.Parameter(torch.empty(rows, self.projection_size))
            self.W_rm = nn.Parameter(torch.empty(self.projection_size, hidden_size))
        self.layer_norm: bool = options["layer_norm"]
        self.norm_x: nn.Module = nn.Identity()
        self.norm_h: nn.Module = nn.Identity()
        self.add_peepholes()
        self.reset_parameters(config)
        if self.layer_norm:
            self.norm_h = Norm(self.gates * hidden_size)
            self.norm_c = Norm(hidden_size)
            self.b_c = nn.Parameter(torch.zeros(hidden_size))
            if input_size:
                self.norm_x = Norm(self.gates * hidden_size)

    def add_peepholes(self) -> None:
        """Make the weights of ``peep``: here none."""

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        remember(self.a, self.gates - 3, self.hidden_size, config)

    @property
    def output_size(self) -> int:
        return self.projection_size or self.hidden_size

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """h has as many units as the projection, c as there are cells."""
        return (self.output_size, self.hidden_size)

    @property
    def h_range(self) -> Range | None:
        return None if self.projection_size else RANGES["tanh"]

    def gate_rows(self, weight: Tensor) -> int:
        return self.hidden_size

    def step_weights(self) -> dict[str, Tensor]:
        projection = {"W_rm": self.W_rm} if self.projection_size else {}
        return {**self.recurrent_weights(), **projection}

    @property
    def sums_plainly(self) -> bool:
        return not self.layer_norm

    def sums(self, v: Tensor) -> Tensor:
        normal: Tensor = self.norm_x(v)
        return normal + self.a

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        h, c = state
        *i, f, g, o = (projected + self.norm_h(product("W_hh", h))).chunk(self.gates, dim=1)
        forget = torch.sigmoid(self.peep(f, "W_cf", c))
        c = torch.addcmul(forget * c, self.input_gate(i, forget, c), torch.tanh(g))
        exposed = self.norm_c(c) + self.b_c if self.layer_norm else c
        m = torch.sigmoid(self.peep(o, "W_co", c)) * torch.tanh(exposed)
        return (product("W_rm", m) if self.projection_size else m), c

    def input_gate(self, i: Sequence[Tensor], forget: Tensor, c: Tensor) -> Tensor:
        """``i``: its sum (B, H), or nothing where it is coupled to the forget gate (B, H)."""
        return torch.sigmoid(self.peep(i[0], "W_ci", c)) if i else 1.0 - forget

    def peep(self, gate: Tensor, name: str, c: Tensor) -> Tensor:
        """gate: (B, H), the sum of a gate; c: (B, H) -> the sum with what the gate sees of c."""
        return gate


class PeepholeLSTM(VariantLSTM):
    """Gates that see the cell: Graves 2013, eqs. 7 to 11 (Gers and Schmidhuber 2000).

    i = sigmoid(... + W_ci c(t-1)), f likewise with W_cf, o = sigmoid(... + W_co c(t)). The matrices
    from cell to gate are diagonal: W_ci, W_cf and W_co are (H,). They start at 0, as biases do, or
    as ``init`` uniform says.
    """

    def add_peepholes(self) -> None:
        for name in ("W_cf", "W_co") if self.gates == 3 else ("W_ci", "W_cf", "W_co"):
            setattr(self, name, nn.Parameter(torch.empty(self.hidden_size)))

    def peep(self, gate: Tensor, name: str, c: Tensor) -> Tensor:
        weight: Tensor = getattr(self, name)
        return gate + weight * c
