"""Running a cell over time: one meaning, several ways.

reference   a plain loop under autograd; the others are tested against it
deferred    the same loop, weight gradients formed once after the last step
scan        recurrences that are linear in their state
closed      forward and backward written by hand (LSTM)
vendor      the library's fused kernels (oneDNN, cuDNN) where the cell has one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.cells.lstm import LSTM
from rnncli.nn.recurrence import vendor
from rnncli.nn.recurrence.closed_lstm import run_closed_lstm
from rnncli.nn.recurrence.deferred import DeferredProducts
from rnncli.nn.recurrence.scan import run_scan
from rnncli.nn.state import CellState

Runner = Callable[
    [Cell, Tensor, CellState, Mapping[str, Tensor], torch.dtype], tuple[Tensor, CellState]
]


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
    if engine in WHOLE:
        return WHOLE[engine](cell, x, state, weights, dtype)
    projected = cell.project(x, state, dtype)
    h, last = LOOPS[engine](cell, projected, state, weights, dtype)
    return (h if cell.emits_h else cell.emit(h, x, projected, dtype)), last


def engines(cell: Cell) -> tuple[str, ...]:
    """The engines that run this cell."""
    names = ["reference", "deferred"]
    if isinstance(cell, LinearCell):
        names.append("scan")
    if type(cell) is LSTM:
        names.append("closed")
    if vendor.has_kernel(cell):
        names.append("vendor")
    return tuple(names)


def fastest(cell: Cell, dtype: torch.dtype, device: torch.device) -> str:
    """The engine for this cell by its shape alone, so that a run repeats itself.

    On a processor the library's loops for Elman and GRU are no faster than ours, which form weight
    gradients once; oneDNN's LSTM is the fastest in float32, and in bfloat16 up to some 512 units,
    for multiples of 32.
    """
    if isinstance(cell, LinearCell):
        return "scan"
    training, on_cpu = torch.is_grad_enabled(), device.type == "cpu"
    if not vendor.has_kernel(cell):
        return "deferred" if training else "reference"
    if on_cpu and training and type(cell) is not LSTM:
        return "deferred"
    H = cell.hidden_size
    if on_cpu and type(cell) is LSTM and dtype == torch.bfloat16 and (H > 512 or H % 32):
        return "closed"
    return "vendor"


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

WHOLE: dict[str, Runner] = {"closed": run_closed_lstm, "vendor": vendor.run_vendor}
"""From the inputs to the outputs."""
