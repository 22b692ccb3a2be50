"""Deep recurrent networks (Pascanu, Gulcehre, Cho and Bengio 2013, arXiv:1312.6026, sec. 3).

Where an Elman network has one layer from h(t-1) to h(t), one from x(t) to it and one from it to the
output, each of the three may be a network of several layers: a deep transition (DT), a deep
input-to-hidden function (DI), a deep hidden-to-output function (DO). DOT is DO and DT, and (S) adds
shortcuts across the layers of the transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.units import Layers, Units, start_with_euclidean_units
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig


class DeepTransition(Cell):
    """The transition has L = ``transition_depth`` layers of H units (sec. 3.3.2, eq. 7):

    z_1 = f(W_1 h(t-1) + U x(t) + a_1);  z_l = f(W_l z_(l-1) + a_l);  h(t) = z_L.

    ``shortcuts``: every layer above the first has a full matrix of its own from the state before,
    z_l = f(W_l z_(l-1) + S_l h(t-1) + a_l) (fig. 2b*). ``transition_input`` all: x(t) goes to every
    layer, through rows of U of its own, as in the networks with shortcuts that the paper reports.
    With L = 1 this is Elman's network.

    ``input_depth`` layers lie before U, ``output_depth`` layers of ``output_size`` units (0: H)
    between h(t) and what reads it; both are run for all time steps at once.

    ``layer_norm``: the sums of a layer are those of its normalised products, LN(W_l z_(l-1)) +
    LN(S_l h(t-1)) + LN(U_l x(t)) + a_l; the networks before U and after h(t) have none.

    W_hh holds W_1 and, one after the other, S_2 ... S_L; W_xh and a hold what goes to layer 1, or
    to all. Layers of pieces (maxout, lp) have so many rows for each unit.
    """

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        """Raises UsageError for a size of an output network that has no layers."""
        nn.Module.__init__(self)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.depth: int = options["transition_depth"]
        self.shortcuts: bool = options["shortcuts"]
        self.input_to_all: bool = options["transition_input"] == "all"
        self.units = Units.of(options["nonlinearity"], options)
        self._width = hidden_size * self.units.pieces
        before, x_size = options["input_depth"], input_size
        self.inputs = Layers(before, input_size, hidden_size, self.units) if before else None
        if self.inputs is not None:
            x_size = hidden_size
        reading = self._width * (self.depth if self.input_to_all else 1)
        remembering = self._width * (self.depth if self.shortcuts else 1)
        self.W_xh = nn.Parameter(torch.empty(reading, x_size))
        self.W_hh = nn.Parameter(torch.empty(remembering, hidden_size))
        self.a = nn.Parameter(torch.empty(reading))
        for layer in range(1, self.depth + 1):
            self._add_layer(layer)
        self._add_outputs(options)
        self.reset_parameters(config)

    def _add_layer(self, layer: int) -> None:
        """W_l, a_l and rho_l, where layer ``layer`` has such."""
        self.register_parameter(f"rho_{layer}", self.units.rho(self.hidden_size))
        if layer > 1:
            matrix = nn.Parameter(torch.empty(self._width, self.hidden_size))
            self.register_parameter(f"W_{layer}", matrix)
            if not self.input_to_all:
                self.register_parameter(f"a_{layer}", nn.Parameter(torch.empty(self._width)))

    def _add_outputs(self, options: Mapping[str, Any]) -> None:
        depth, size = options["output_depth"], options["output_size"]
        if size and not depth:
            raise UsageError(
                "model.output_size: there is no output network; give model.output_depth too"
            )
        kind = options["output_nonlinearity"]
        units = Units.of(options["nonlinearity"] if kind == "same" else kind, options)
        size = size or self.hidden_size
        self.outputs = Layers(depth, self.hidden_size, size, units) if depth else None
        self._output_size = size

    @property
    def output_size(self) -> int:
        return self._output_size

    @property
    def emits_h(self) -> bool:
        return self.outputs is None

    @property
    def reads_by_matrix(self) -> bool:
        return self.inputs is None

    @property
    def h_range(self) -> Range | None:
        return RANGES.get(self.units.kind)

    def recurrent_weights(self) -> dict[str, Tensor]:
        """Those of the whole transition: all of them start, and are dropped, alike."""
        above = {f"W_{n}": getattr(self, f"W_{n}") for n in range(2, self.depth + 1)}
        return {"W_hh": self.W_hh, **above}

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """The rows of each layer by themselves."""
        groups = super().norm_groups()
        return {name: (self._width,) * (rows[0] // self._width) for name, rows in groups.items()}

    def reset_parameters(self, config: ModelConfig) -> None:
        super().reset_parameters(config)
        start_with_euclidean_units(self)

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        return self.read(x if self.inputs is None else self.inputs.run(x, dtype), dtype)

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        return (self.layers_of(projected, state, product)[-1],)

    def layers_of(self, projected: Tensor, state: CellState, product: Product) -> list[Tensor]:
        """z_1, ..., z_L = h(t), each (B, H), of what ``step`` is given."""
        (h,) = state
        from_x = torch.split(projected, self._width, dim=1)
        from_h = torch.split(product("W_hh", h), self._width, dim=1)
        z, found = h, []
        for layer in range(1, self.depth + 1):
            v = from_h[0] if layer == 1 else product(f"W_{layer}", z)
            if layer == 1 or self.input_to_all:
                v = v + from_x[layer - 1]
            else:
                v = v + getattr(self, f"a_{layer}")
            if layer > 1 and self.shortcuts:
                v = v + from_h[layer - 1]
            z = self.units(v, getattr(self, f"rho_{layer}"))
            found.append(z)
        return found

    def emit(self, h: Tensor, x: Tensor, projected: Tensor, dtype: torch.dtype) -> Tensor:
        return h if self.outputs is None else self.outputs.run(h, dtype)
