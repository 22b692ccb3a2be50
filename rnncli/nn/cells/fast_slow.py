"""Fast-slow recurrent networks (Mujika, Meier and Steger 2017, arXiv:1705.08639)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.initialization import remember
from rnncli.nn.cells.layer_norm import Norm
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig

Sums = dict[str, Tensor]
"""(B, 4 n) of each LSTM cell by its name: the sums of i, f, g and o."""


class FastSlow(Cell):
    """k = ``fast_layers`` LSTM cells one after the other and a slow one beside them (sec. 3).

    The fast cells hand one state on from each to the next, and from the last to the first one of
    the next time step; the slow cell changes its own state once a time step, between the first two:

    h_F1 = F1(x(t), h_Fk(t-1));  h_S = S(h_F1, h_S(t-1));  h_F2 = F2(h_S, h_F1);
    h_Fi = Fi(h_F(i-1)) for i > 2, without an input;  the output is h_Fk.

    F1 has the matrices W_xh and W_hh and the bias a, S has U_S, W_S and a_S, F2 has U_2, W_2 and
    a_2, Fi has W_i and a_i; each with the rows i, f, g, o of an LSTM. ``slow_size``: units of S (0:
    half of H). The state is h and c of the fast cells, then those of the slow one.

    ``layer_norm``: the sum of each gate is normalised by itself, and so is what h sees of c, h = o
    * tanh(LN(c) + b), as in the authors' program.
    """

    gates = 4
    state_parts = 4
    normalizes_itself = True

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        super().__init__(config, options, input_size, hidden_size)
        self.fast_layers: int = options["fast_layers"]
        self.slow_size: int = options["slow_size"] or max(1, hidden_size // 2)
        H, S = hidden_size, self.slow_size
        self.U_S = nn.Parameter(torch.empty(4 * S, H))
        self.W_S = nn.Parameter(torch.empty(4 * S, S))
        self.a_S = nn.Parameter(torch.empty(4 * S))
        self.U_2 = nn.Parameter(torch.empty(4 * H, S))
        self.W_2 = nn.Parameter(torch.empty(4 * H, H))
        self.a_2 = nn.Parameter(torch.empty(4 * H))
        for layer in range(3, self.fast_layers + 1):
            self.register_parameter(f"W_{layer}", nn.Parameter(torch.empty(4 * H, H)))
            self.register_parameter(f"a_{layer}", nn.Parameter(torch.empty(4 * H)))
        self.layer_norm: bool = options["layer_norm"]
        self.reset_parameters(config)
        if self.layer_norm:
            self.norms = nn.ModuleDict({name: _Norms(len(a) // 4) for name, a in self._biases()})

    def _biases(self) -> list[tuple[str, Tensor]]:
        """Of each LSTM cell, by their names."""
        return [(n, p) for n, p in self.named_parameters(recurse=False) if p.dim() == 1]

    @property
    def sums_plainly(self) -> bool:
        return not self.layer_norm

    def sums(self, v: Tensor) -> Tensor:
        return v if self.layer_norm else super().sums(v)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size,) * 2 + (self.slow_size,) * 2

    @property
    def part_kinds(self) -> tuple[str, ...]:
        return ("hidden", "cell", "hidden", "cell")

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"]

    def recurrent_weights(self) -> dict[str, Tensor]:
        above = {f"W_{n}": getattr(self, f"W_{n}") for n in range(2, self.fast_layers + 1)}
        return {"W_hh": self.W_hh, "W_S": self.W_S, **above}

    def step_weights(self) -> dict[str, Tensor]:
        return {**self.recurrent_weights(), "U_S": self.U_S, "U_2": self.U_2}

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        for _, bias in self._biases():
            remember(bias, 1, len(bias) // 4, config)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        return self.walk(projected, state, product, None)

    def walk(
        self, projected: Tensor, state: CellState, product: Product, seen: Sums | None
    ) -> CellState:
        """A step, which leaves in ``seen`` what each cell, F1, S, F2 ..., made its gates of."""
        h, c, h_slow, c_slow = state
        v = self._sums("a", projected + product("W_hh", h))
        h, c = self._lstm("F1", "a", v, c, seen)
        v = self._sums("a_S", product("U_S", h) + product("W_S", h_slow))
        h_slow, c_slow = self._lstm("S", "a_S", v, c_slow, seen)
        v = self._sums("a_2", product("U_2", h_slow) + product("W_2", h))
        h, c = self._lstm("F2", "a_2", v, c, seen)
        for k in range(3, self.fast_layers + 1):
            v = self._sums(f"a_{k}", product(f"W_{k}", h))
            h, c = self._lstm(f"F{k}", f"a_{k}", v, c, seen)
        return h, c, h_slow, c_slow

    def _sums(self, bias: str, v: Tensor) -> Tensor:
        """Of the cell whose bias is called ``bias``. v: (B, 4 n), what its products add up to; of
        the first one the bias is in it, unless it is normalised."""
        a: Tensor = getattr(self, bias)
        if self.layer_norm:
            normal: Tensor = cast(_Norms, self.norms[bias]).gates(v)
            return normal + a
        return v if bias == "a" else v + a

    def _lstm(
        self, name: str, bias: str, v: Tensor, c: Tensor, seen: Sums | None
    ) -> tuple[Tensor, Tensor]:
        """v: (B, 4 n), the sums of i, f, g and o; c: (B, n) -> h and the new c."""
        if seen is not None:
            seen[name] = v
        i, f, g, o = v.chunk(4, dim=1)
        c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
        exposed = c
        if self.layer_norm:
            norms = cast(_Norms, self.norms[bias])
            exposed = norms.cell(c) + norms.b
        return torch.sigmoid(o) * torch.tanh(exposed), c


class _Norms(nn.Module):
    """What a cell of n units normalises."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.gates = Norm(n, n, n, n)
        self.cell = Norm(n)
        self.b = nn.Parameter(torch.zeros(n))
