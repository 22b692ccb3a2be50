"""What the gates of a cell were at every step, computed again from the run that it left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.gru import GRU, GRUCho2014
from rnncli.nn.cells.layer_norm import LayerNormalized
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.cells.lstm_variants import PeepholeLSTM, VariantLSTM
from rnncli.nn.cells.zoneout import Zoneout
from rnncli.nn.recurrence.trace import Trace
from rnncli.nn.state import CellState

Gates = dict[str, Tensor]
"""By name, each (N, H). Those of a GRU are reset, update and candidate; update is the share of the
state that is kept, as in the equations of ``rnncli.nn.cells.gru``."""

_LSTM = ("input", "forget", "candidate", "output", "cell")
_GRU = ("reset", "update", "candidate")


def gate_names(cell: Cell) -> tuple[str, ...]:
    """The gates of ``cell`` that ``gate_values`` knows."""
    kind = unwrapped(cell)
    if type(kind) in (LSTM, VariantLSTM, PeepholeLSTM):
        return _LSTM
    if isinstance(kind, (GRU, GRUCho2014)):
        return _GRU
    return ("forget",) if isinstance(kind, LinearCell) else ()


def gate_values(trace: Trace, gate: str) -> Tensor:
    """The gate called ``gate`` (or an LSTM's ``cell``) at every step of a run: (T, B, H)."""
    T, B = trace.projected.shape[:2]
    if gate == "cell":
        return torch.stack([after[1] for after in trace.states[1:]])
    cell = unwrapped(trace.cell)
    parts = [torch.stack(part).flatten(0, 1) for part in zip(*trace.states[:-1], strict=True)]
    values = _gates_of(cell)(cell, trace.projected.flatten(0, 1), tuple(parts), _product_of(cell))
    return values[gate].view(T, B, -1)


def gate_range(gate: str) -> Range:
    """Between what the values of the gate called ``gate`` lie, which is not an LSTM's ``cell``."""
    return RANGES["tanh" if gate == "candidate" else "sigmoid"]


def unwrapped(cell: Cell) -> Cell:
    """``cell`` without zoneout around it."""
    return cell.cell if isinstance(cell, Zoneout) else cell


def _gates_of(cell: Cell) -> Callable[[Cell, Tensor, CellState, Product], Gates]:
    for kind, function in (
        (LSTM, _lstm), (VariantLSTM, _variant_lstm), (GRU, _gru), (GRUCho2014, _gru_cho2014),
    ):  # fmt: skip
        if isinstance(cell, kind):
            return function
    return _linear


def _product_of(cell: Cell) -> Product:
    """What ``cell`` gives its equations for ``product``: normalised, where it does that."""

    def multiply(weights: dict[str, Tensor], name: str, v: Tensor) -> Tensor:
        out = F.linear(v, weights[name])
        return cell.norms[name](out) if isinstance(cell, LayerNormalized) else out

    return partial(multiply, cell.step_weights())


def _lstm(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    i, f, g, o = (projected + product("W_hh", state[0])).chunk(4, dim=1)
    values = (torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))
    return dict(zip(_LSTM, values, strict=False))


def _variant_lstm(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, VariantLSTM)
    h, c = state
    *i, f, g, o = (projected + cell.norm_h(product("W_hh", h))).chunk(cell.gates, dim=1)
    forget = torch.sigmoid(cell.peep(f, "W_cf", c))
    taken, candidate = cell.input_gate(i, forget, c), torch.tanh(g)
    output = torch.sigmoid(cell.peep(o, "W_co", forget * c + taken * candidate))
    return dict(zip(_LSTM, (taken, forget, candidate, output), strict=False))


def _gru(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, GRU)
    x_r, x_z, x_n = projected.chunk(3, dim=1)
    h_r, h_z, h_n = product("W_hh", state[0]).chunk(3, dim=1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return dict(zip(_GRU, (r, z, torch.tanh(x_n + r * (h_n + cell.a_n))), strict=True))


def _gru_cho2014(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    (h,) = state
    x_r, x_z, x_n = projected.chunk(3, dim=1)
    h_r, h_z = product("W_hh", h).chunk(2, dim=1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return dict(zip(_GRU, (r, z, torch.tanh(x_n + product("U", r * h))), strict=True))


def _linear(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, LinearCell)
    return {"forget": cell.coefficients(projected)[0]}
