"""Running a cell over time: one meaning, several ways.

reference   a plain loop under autograd; the others are tested against it
deferred    the same loop, weight gradients formed once after the last step
scan        recurrences that are linear in their state
closed      forward and backward written by hand (Elman, LSTM, GRU in both forms, RHN, deep
            transitions)
vendor      the library's fused kernels (oneDNN, cuDNN) where the cell has one

On a CUDA device deferred, scan and closed (not the LSTM's) are recorded and replayed
(``recorded``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.deep_transition import DeepTransition
from rnncli.nn.cells.elman import Elman
from rnncli.nn.cells.gru import GRU, GRUCho2014
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.cells.recurrent_highway import RecurrentHighway
from rnncli.nn.recurrence import vendor
from rnncli.nn.recurrence.closed import (
    Runner,
    run_closed_elman,
    run_closed_gru,
    run_closed_gru_cho2014,
)
from rnncli.nn.recurrence.closed_highway import run_closed_highway
from rnncli.nn.recurrence.closed_lstm import run_closed_lstm
from rnncli.nn.recurrence.closed_transition import has_closed_transition, run_closed_transition
from rnncli.nn.recurrence.deferred import DeferredProducts
from rnncli.nn.recurrence.recorded import may_record, run_recorded
from rnncli.nn.recurrence.scan import run_scan
from rnncli.nn.state import CellState
from rnncli.nn.state_dropout import StateDropout


def run(
    cell: Cell,
    x: Tensor,
    state: CellState,
    weights: Mapping[str, Tensor],
    *,
    engine: str,
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:
    """x: (T, B, I), state: parts of (B, H) -> outputs (T, B, output_size) and the last state.

    ``weights`` are those of ``cell.step_weights``, perhaps with some connections dropped; ``dtype``
    is the type of the operands of products. ``auto`` is ``fastest``; ``engines`` tells which ones a
    cell has.
    """
    if engine == "auto":
        engine = fastest(cell, dtype, x.device)
        if engine == "vendor" and not vendor.pays(x):
            engine = "deferred" if torch.is_grad_enabled() else "reference"
    if engine == "vendor":
        return vendor.run_vendor(cell, x, state, weights, dtype)
    if engine == "closed" and type(cell) is LSTM:
        return run_closed_lstm(cell, x, state, weights, dtype)
    projected = cell.project(x, state, dtype)
    loop = CLOSED[_kind(cell)] if engine == "closed" else LOOPS[engine]
    if engine != "reference" and may_record(cell, projected):
        h, last = run_recorded(loop, cell, projected, state, weights, dtype)
    else:
        h, last = loop(cell, projected, state, weights, dtype)
    return (h if cell.emits_h else cell.emit(h, x, projected, dtype)), last


def engines(cell: Cell) -> tuple[str, ...]:
    """The engines that run this cell."""
    names = ["reference", "deferred"]
    if isinstance(cell, LinearCell):
        names.append("scan")
    if type(cell) is LSTM or _kind(cell) in CLOSED:
        names.append("closed")
    if vendor.has_kernel(cell):
        names.append("vendor")
    return tuple(names)


def fastest(cell: Cell, dtype: torch.dtype, device: torch.device) -> str:
    """The engine for this cell by its size, never by a measurement, so that a run repeats itself.

    On a processor the library's loops for Elman and GRU are slower than those written by hand;
    oneDNN's LSTM is the fastest in float32, and in bfloat16 up to some 512 units, for multiples of
    32. On a GPU what has several layers within a time step is left to the deferred loop, since its
    closed form has not been measured there.
    """
    if isinstance(cell, LinearCell):
        return "scan"
    training, on_cpu = torch.is_grad_enabled(), device.type == "cpu"
    by_hand = _kind(cell) in CLOSED and (on_cpu or _kind(cell) not in _ONLY_ON_CPU)
    if not vendor.has_kernel(cell):
        return ("closed" if by_hand else "deferred") if training else "reference"
    if on_cpu and training and by_hand:
        return "closed"
    H = cell.hidden_size
    if on_cpu and type(cell) is LSTM and dtype == torch.bfloat16 and (H > 512 or H % 32):
        return "closed"
    return "vendor"


def _kind(cell: Cell) -> type[Cell]:
    """The class by which ``cell`` has a closed form, if it has one; of a recurrent highway network
    also where some units of the state are dropped."""
    if isinstance(cell, StateDropout) and type(cell.cell) is RecurrentHighway:
        return RecurrentHighway
    if isinstance(cell, DeepTransition) and not has_closed_transition(cell):
        return Cell
    return type(cell)


def require_engine(cell: Cell, engine: str) -> None:
    """Raise UsageError when ``engine`` was asked for by name and cannot run ``cell``."""
    if engine != "auto" and engine not in engines(cell):
        raise UsageError(
            f"training.engine: {engine!r} does not run {type(cell).__name__}; "
            f"choices: auto, {', '.join(engines(cell))}"
        )


def _loop(
    cell: Cell, projected: Tensor, state: CellState, product: Callable[[str, Tensor], Tensor]
) -> tuple[Tensor, CellState]:
    outputs = []
    for step_input in projected.unbind(0):
        state = cell.step(step_input, state, product)
        outputs.append(state[0])
    return torch.stack(outputs), state


def run_reference(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """projected: (T, B, G) -> h of every step (T, B, H) and the last state."""
    cast = {name: weight.to(dtype) for name, weight in weights.items()}

    def product(name: str, v: Tensor) -> Tensor:
        return torch.nn.functional.linear(v.to(dtype), cast[name]).to(v.dtype)

    return _loop(cell, projected, state, product)


def run_deferred(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """As ``run_reference``."""
    products = {name: DeferredProducts(weight, dtype) for name, weight in weights.items()}
    return _loop(cell, projected, state, lambda name, v: products[name](v))


LOOPS: dict[str, Runner] = {
    "reference": run_reference,
    "deferred": run_deferred,
    "scan": run_scan,
}
"""From what ``project`` gives to h(t)."""

CLOSED: dict[type[Cell], Runner] = {
    Elman: run_closed_elman,
    GRU: run_closed_gru,
    GRUCho2014: run_closed_gru_cho2014,
    RecurrentHighway: run_closed_highway,
    DeepTransition: run_closed_transition,
}
"""The same by hand, of the cells that have one; the LSTM's begins with the inputs."""

_ONLY_ON_CPU = (RecurrentHighway, DeepTransition)
