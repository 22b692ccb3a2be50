"""What the gates of a cell were at every step, computed again from the run that it left."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.deep_transition import DeepTransition
from rnncli.nn.cells.fast_slow import FastSlow
from rnncli.nn.cells.gated_transition import GatedTransition
from rnncli.nn.cells.gru import GRU, GRUCho2014
from rnncli.nn.cells.layer_norm import LayerNormalized
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.cells.lstm_variants import PeepholeLSTM, VariantLSTM
from rnncli.nn.cells.mogrifier import Mogrifier
from rnncli.nn.cells.qrnn import QRNN
from rnncli.nn.cells.recurrent_highway import RecurrentHighway
from rnncli.nn.cells.rg_lru import RGLRU
from rnncli.nn.cells.slstm import SLSTM
from rnncli.nn.cells.sru import SRU, SRUWithVectors
from rnncli.nn.cells.zoneout import Zoneout
from rnncli.nn.recurrence.trace import Trace
from rnncli.nn.state import CellState

Gates = dict[str, Tensor]
"""By name, each (N, H). ``forget`` is the share of the old state that goes on; of a GRU that is
``update``, as in the equations of ``rnncli.nn.cells.gru``. Of a deep transition ``layer_1`` to
``layer_(L-1)`` are what lies between h(t-1) and h(t)."""

Function = Callable[[Cell, Tensor, CellState, Product], Gates]

_LSTM = ("input", "forget", "candidate", "output", "cell")
_GRU = ("reset", "update", "candidate")


def gate_names(cell: Cell) -> tuple[str, ...]:
    """The gates of ``cell`` that ``gate_values`` knows."""
    kind = unwrapped(cell)
    if isinstance(kind, GatedTransition):
        names = [name for name in gate_names(kind.cell) if name != "cell"]
        steps = range(1, len(kind.steps()) + 1)
        of_c = ("cell",) if kind.state_parts == 2 else ()
        return (*(f"{name}_{k}" for k in steps for name in names), *of_c)
    if isinstance(kind, FastSlow):
        cells = ("F1", "S", *(f"F{k}" for k in range(2, kind.fast_layers + 1)))
        return (*(f"{name}_{one}" for one in cells for name in _LSTM[:4]), "cell")
    if type(kind) in (LSTM, VariantLSTM, PeepholeLSTM, Mogrifier):
        return _LSTM
    if isinstance(kind, (GRU, GRUCho2014)):
        return _GRU
    if isinstance(kind, SLSTM):
        return ("forget", "candidate", "output")
    if isinstance(kind, RecurrentHighway):
        kinds = ("candidate", "transform", *(() if kind.coupled else ("carry",)))
        return tuple(f"{name}_{n}" for n in range(1, kind.depth + 1) for name in kinds)
    if isinstance(kind, DeepTransition):
        return tuple(f"layer_{n}" for n in range(1, kind.depth))
    if isinstance(kind, QRNN):
        return ("forget", "candidate", *("output", "input")[: kind.gates - 2])
    if isinstance(kind, (SRU, SRUWithVectors)):
        return ("forget", "reset")
    if isinstance(kind, RGLRU):
        return ("forget", "recurrence", "input")
    return ("forget",) if isinstance(kind, LinearCell) else ()


def block_names(cell: Cell, name: str) -> tuple[str, ...]:
    """The gates whose rows the recurrent matrix ``name`` holds, from above; of an sLSTM with its
    input gate, which is not one of ``gate_names``."""
    kind = unwrapped(cell)
    if kind is not cell:
        name = name.removeprefix("cell.")
    if isinstance(kind, GatedTransition):
        for prefix, one in kind.steps():
            inner = name.removeprefix(prefix)
            if name.startswith(prefix) and inner in one.recurrent_weights():
                return block_names(one, inner)
    if isinstance(kind, FastSlow):
        return _LSTM[:4]
    if isinstance(kind, GRUCho2014):
        return _GRU[:2] if name == "W_hh" else _GRU[2:]
    if isinstance(kind, SLSTM):
        return ("input", *gate_names(kind))
    if isinstance(kind, RecurrentHighway):
        return ("candidate", "transform", *(() if kind.coupled else ("carry",)))
    if isinstance(kind, VariantLSTM) and kind.gates == 3:
        return _LSTM[1:4]
    if isinstance(kind, DeepTransition):
        return ()
    return tuple(gate for gate in gate_names(kind) if gate != "cell")


def gate_values(trace: Trace, gate: str) -> Tensor:
    """The gate called ``gate`` (or an LSTM's ``cell``) at every step of a run: (T, B, H)."""
    T, B = trace.projected.shape[:2]
    if gate == "cell":
        return torch.stack([after[1] for after in trace.states[1:]])
    cell = unwrapped(trace.cell)
    parts = [torch.stack(part).flatten(0, 1) for part in zip(*trace.states[:-1], strict=True)]
    values = _gates_of(cell)(cell, trace.projected.flatten(0, 1), tuple(parts), _product_of(cell))
    return values[gate].view(T, B, -1)


def gate_size(cell: Cell, gate: str) -> int:
    """The units of the gate called ``gate``."""
    kind = unwrapped(cell)
    slow = isinstance(kind, FastSlow) and gate.endswith("_S")
    return kind.slow_size if slow and isinstance(kind, FastSlow) else kind.hidden_size


def gate_range(cell: Cell, gate: str) -> Range | None:
    """Between what the values of the gate called ``gate`` lie, which is not an LSTM's ``cell``.
    None: they have no ends."""
    if isinstance(unwrapped(cell), DeepTransition):
        return cell.h_range
    return RANGES["tanh" if gate.startswith("candidate") else "sigmoid"]


def unwrapped(cell: Cell) -> Cell:
    """``cell`` without zoneout around it."""
    return cell.cell if isinstance(cell, Zoneout) else cell


def _gates_of(cell: Cell) -> Function:
    functions: tuple[tuple[type[Cell], Function], ...] = (
        (LSTM, _lstm), (Mogrifier, _mogrifier), (VariantLSTM, _variant_lstm), (GRU, _gru),
        (GRUCho2014, _gru_cho2014), (SLSTM, _slstm), (RecurrentHighway, _rhn),
        (SRUWithVectors, _sru_with_vectors), (GatedTransition, _transition), (FastSlow, _fast_slow),
        (DeepTransition, _deep_transition),
    )  # fmt: skip
    for kind, function in functions:
        if isinstance(cell, kind):
            return function
    return _linear


def _product_of(cell: Cell) -> Product:
    """What ``cell`` gives its equations for ``product``: normalised, where it does that."""

    plain = _plain_product_of(cell)
    if not isinstance(cell, LayerNormalized):
        return plain
    norms = cell.norms
    return lambda name, v: norms[name](plain(name, v))


def _plain_product_of(cell: Cell) -> Product:
    weights = cell.step_weights()
    return lambda name, v: F.linear(v, weights[name])


def _transition(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    """Those of each step with its number; only the first one reads ``projected``."""
    assert isinstance(cell, GatedTransition)
    found: Gates = {}
    for k, (_, one) in enumerate(cell.steps(), 1):
        if k > 1:
            projected = one.a.expand(len(projected), -1)
        gates = _gates_of(one)(one, projected, state, _product_of(one))
        found |= {f"{name}_{k}": values for name, values in gates.items()}
        state = one.step(projected, state, _plain_product_of(one))
    return found


def _deep_transition(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, DeepTransition)
    layers = cell.layers_of(projected, state, product)
    return {f"layer_{n}": z for n, z in enumerate(layers[:-1], 1)}


def _fast_slow(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, FastSlow)
    sums: dict[str, Tensor] = {}
    cell.walk(projected, state, product, sums)
    found: Gates = {}
    for one, v in sums.items():
        i, f, g, o = v.chunk(4, dim=1)
        values = (torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))
        found |= {f"{name}_{one}": value for name, value in zip(_LSTM, values, strict=False)}
    return found


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


def _mogrifier(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, Mogrifier)
    projected, state = cell.mogrified(projected, state, product)
    return _variant_lstm(cell, projected, state, product)


def _slstm(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    """Its gates are exponentials; what goes on of the old state is the share f n / (f n + i)."""
    assert isinstance(cell, SLSTM)
    h, _, n, m = state
    i, f, z, o = (projected + product("W_hh", h)).chunk(4, dim=1)
    kept = cell.log_forget(f) + m + torch.log(n)
    return {
        "forget": torch.sigmoid(kept - i), "candidate": torch.tanh(z), "output": torch.sigmoid(o),
    }  # fmt: skip


def _rhn(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, RecurrentHighway)
    found: Gates = {}
    (s,) = state
    for layer in range(1, cell.depth + 1):
        h, t, c = cell.gates_of(layer, s, projected, product)
        found |= {f"candidate_{layer}": h, f"transform_{layer}": t, f"carry_{layer}": c}
        s = h * t + s * c
    return found


def _sru_with_vectors(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, SRUWithVectors)
    _, f, r, _ = projected.chunk(4, dim=1)
    return {
        "forget": torch.sigmoid(f + cell.v_f * state[1]),
        "reset": torch.sigmoid(r + cell.v_r * state[1]),
    }


def _linear(cell: Cell, projected: Tensor, state: CellState, product: Product) -> Gates:
    assert isinstance(cell, LinearCell)
    found = {"forget": cell.coefficients(projected)[0]}
    rows = torch.split(projected, cell.hidden_size, dim=1)
    if isinstance(cell, QRNN):
        found["candidate"] = torch.tanh(rows[0])
        for name, row in zip(("output", "input"), rows[2 : cell.gates], strict=False):
            found[name] = torch.sigmoid(row)
    elif isinstance(cell, SRU):
        found["reset"] = torch.sigmoid(rows[2])
    elif isinstance(cell, RGLRU):
        found |= {"recurrence": torch.sigmoid(rows[1]), "input": torch.sigmoid(rows[2])}
    return found
