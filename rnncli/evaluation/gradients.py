"""The gradients of a recurrent network laid open: how errors travel back through time, and why.

For windows of T steps, t being the last: the norm of dL(t)/ds(k) for every k, L(t) the loss at t
alone and s(k) the state of a layer (h, or h and c together); the norms of the Jacobians ds(t)/ds(k)
and their bounds (``rnncli.evaluation.jacobians``); the recurrent matrices' singular values and
spectral radius; and how far units and gates are saturated, where their slopes are nearly zero.
Everything is computed in float64: what vanishes falls below the smallest float32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnncli.errors import FileError
from rnncli.evaluation.gates import block_names, gate_names, gate_range, gate_values, unwrapped
from rnncli.evaluation.jacobians import is_exact, product_norms, step_bounds, weight_bound
from rnncli.evaluation.subjects import DTYPE, Subject
from rnncli.nn.cells import Cell
from rnncli.nn.cells.base import Range
from rnncli.nn.cells.linear import LinearCell
from rnncli.nn.recurrence.trace import Trace
from rnncli.nn.stack import Run

JACOBIAN_WINDOWS = 4
"""Jacobians are formed for so many of the windows."""

NEAR = 0.05
"""What is nearer than this to an end of its range is taken to be saturated."""


@dataclass(frozen=True)
class Curve:
    """Something by ``lags`` = t - k: its median over the windows, and the values below which a
    tenth and nine tenths of them are."""

    lags: list[int]
    low: list[float]
    median: list[float]
    high: list[float]

    @property
    def factor(self) -> float:
        """By what it is multiplied with every step further back: the slope of its logarithm over
        all lags but 0. inf where it overflows, nan where there is nothing to fit."""
        if not all(map(math.isfinite, self.median)):
            return math.inf
        points = [
            (lag, math.log(value))
            for lag, value in zip(self.lags, self.median, strict=True)
            if lag and value > 0
        ]
        if len(points) < 2:
            return math.nan
        x = [lag - sum(lag for lag, _ in points) / len(points) for lag, _ in points]
        return math.exp(
            sum(a * y for a, (_, y) in zip(x, points, strict=True)) / sum(a * a for a in x)
        )


@dataclass(frozen=True)
class Jacobians:
    """Spectral norms of ds(t)/ds(k). ``bound_of_steps``: the product of the norms of the steps
    between; ``bound_of_weights``: (gamma sigma)^(t-k), None for cells that it does not bound. Norms
    that are not ``exact`` are from power iteration, from below."""

    norm: Curve
    bound_of_steps: Curve
    bound_of_weights: list[float] | None
    exact: bool
    windows: int


@dataclass(frozen=True)
class Matrix:
    """A recurrent matrix, or one gate's block of it. ``spectral_radius``: the largest absolute
    eigenvalue, None where it is not square. ``singular_values``: the largest first."""

    name: str
    rows: int
    columns: int
    spectral_radius: float | None
    singular_values: list[float]


@dataclass(frozen=True)
class Saturation:
    """Shares of the values of ``name`` (h or a gate) over all steps and windows that are at the
    ``low`` and the ``high`` end of their range: below 0.05 of what is from 0 to 1, -0.95 of what is
    from -1 to 1, and above 0.95. Of rectified units ``low`` is the share that is 0, and ``high``
    None."""

    name: str
    low: float
    high: float | None


@dataclass(frozen=True)
class Layer:
    """A cell: its layer's number from 1, and whether it reads forward or backward.

    ``jacobians`` is None of one that reads backward: its h(t) is the first that it made, and does
    not depend on any h(k). ``state``: the names of the state's parts."""

    layer: int
    direction: str
    cell: str
    units: int
    state: str
    gradient: Curve
    gradient_factor: float
    jacobians: Jacobians | None
    matrices: list[Matrix]
    saturation: list[Saturation]


@dataclass(frozen=True)
class TrainingNorms:
    """The gradient's norm, before clipping, as a run recorded it: ``norms`` at ``steps``, and
    ``largest`` since the one before. Runs of earlier versions recorded a few steps only. Of all
    ``counted_steps`` that the records tell of, ``clipped_steps`` had one above ``clip_norm`` (0:
    none is clipped)."""

    steps: list[int]
    norms: list[float]
    largest: list[float]
    counted_steps: int
    clipped_steps: int
    clip_norm: float


@dataclass(frozen=True)
class Report:
    """All that was found out. ``training`` is None where there is no run."""

    model: str
    task: str
    trained: bool
    source: str
    steps: int
    layers: list[Layer]
    training: TrainingNorms | None

    def to_dict(self) -> dict[str, Any]:
        """The object that ``gradients --json`` prints."""
        return dataclasses.asdict(self)


def look_into(subject: Subject, training: TrainingNorms | None = None) -> Report:
    """Run ``subject`` and measure."""
    traces: list[Trace] = []
    losses = subject.losses(Run("reference", DTYPE, traces))
    norms = gradient_norms(losses.sum(), traces)
    backward = subject.stack.backward_cells
    per_layer = subject.stack.cells_a_layer
    config = subject.config
    layers = [
        _layer(
            trace,
            norm,
            backward[n],
            n // per_layer + 1,
            config.model.cell_row(n // per_layer).title,
        )
        for n, (trace, norm) in enumerate(zip(traces, norms, strict=True))
    ]
    return Report(
        model=subject.name,
        task=config.task,
        trained=subject.trained,
        source=subject.source,
        steps=len(traces[0].projected),
        layers=layers,
        training=training,
    )


def gradient_norms(loss: Tensor, traces: Sequence[Trace]) -> list[Tensor]:
    """For each trace (T, B): the norm of the gradient of ``loss`` by the state after each step.
    Each sequence of the batch has its own, ``loss`` being a sum over them."""
    states = [
        part
        for trace in traces
        for state in trace.states[1:]
        for part in state
        if part.requires_grad
    ]
    found = torch.autograd.grad(loss, states, allow_unused=True)
    by_state = dict(zip(map(id, states), found, strict=True))
    norms = []
    for trace in traces:
        steps = []
        for state in trace.states[1:]:
            known = [d for d in (by_state.get(id(part)) for part in state) if d is not None]
            rows = len(state[0])
            zero = state[0].new_zeros(rows)
            steps.append(torch.cat(known, 1).norm(dim=1) if known else zero)
        norms.append(torch.stack(steps).detach())
    return norms


def _layer(trace: Trace, norms: Tensor, backward: bool, number: int, title: str) -> Layer:
    cell = trace.cell
    # A cell that reads backward met the last step first.
    by_lag = norms if backward else norms.flip(0)
    gradient = _curve(list(range(len(by_lag))), by_lag)
    kinds = (_first_part(cell), *("c" if k == "cell" else k for k in cell.part_kinds[1:]))
    return Layer(
        layer=number,
        direction="backward" if backward else "forward",
        cell=title,
        units=cell.hidden_size,
        state=", ".join(dict.fromkeys(kinds)),
        gradient=gradient,
        gradient_factor=gradient.factor,
        jacobians=None if backward else _jacobians(trace),
        matrices=matrices(cell),
        saturation=saturation(trace),
    )


def _first_part(cell: Cell) -> str:
    """What QRNN and SRU make their h of is c."""
    return "c" if isinstance(unwrapped(cell), LinearCell) and not cell.emits_h else "h"


def _curve(lags: list[int], values: Tensor) -> Curve:
    """values: (lags, windows). What has overflowed is inf."""
    values = values.cpu().nan_to_num(nan=math.inf, posinf=math.inf)
    shares = torch.tensor([0.1, 0.5, 0.9], dtype=values.dtype)
    # Between inf and inf a quantile is interpolated to nan.
    low, median, high = (
        torch.quantile(values, shares, dim=1).nan_to_num(nan=math.inf, posinf=math.inf).tolist()
    )
    return Curve(lags, low, median, high)


def _jacobians(trace: Trace) -> Jacobians:
    T, B = trace.projected.shape[:2]
    exact = is_exact(trace.cell)
    lags = list(range(T)) if exact else spread_lags(T)
    windows = min(B, JACOBIAN_WINDOWS if exact else 1)
    norms, bounds = [], []
    for column in range(windows):
        products, steps = product_norms(trace, column, lags)
        norms.append(products)
        bounds.append(step_bounds(steps, lags))
    base = weight_bound(trace.cell)
    return Jacobians(
        norm=_curve(lags, torch.stack(norms, 1)),
        bound_of_steps=_curve(lags, torch.stack(bounds, 1)),
        bound_of_weights=None if base is None else _powers(base, lags),
        exact=exact,
        windows=windows,
    )


def _powers(base: float, lags: Sequence[int]) -> list[float]:
    """base^lag of each; inf where that is too large."""
    powers: list[float] = torch.tensor(base, dtype=DTYPE).pow(torch.tensor(list(lags))).tolist()
    return powers


def spread_lags(steps: int) -> list[int]:
    """0, 1, 2, 3, 5, 7, 10, 15, 20, ... and the last, ``steps`` - 1."""
    found = {0, steps - 1}
    for power in range(1 + int(math.log10(max(1, steps)))):
        found |= {int(step * 10**power) for step in (1, 1.5, 2, 3, 5, 7)}
    return sorted(lag for lag in found if lag < steps)


def matrices(cell: Cell) -> list[Matrix]:
    """The recurrent matrices, those of several gates block by block."""
    found = []
    for name, weight in cell.recurrent_weights().items():
        blocks = torch.split(weight.detach(), cell.gate_rows(weight))
        gates = block_names(cell, name)
        labels = [f"{name} {gate}" for gate in gates] if len(blocks) > 1 else [name]
        if len(labels) != len(blocks):
            labels = [f"{name} {k + 1}/{len(blocks)}" for k in range(len(blocks))]
        for block, label in zip(blocks, labels, strict=True):
            radius = None
            if block.shape[0] == block.shape[1]:
                radius = float(torch.linalg.eigvals(block).abs().max())
            values = torch.linalg.svdvals(block).tolist()
            found.append(Matrix(label, block.shape[0], block.shape[1], radius, values))
    return found


def saturation(trace: Trace) -> list[Saturation]:
    """Of h where it has ends, and of every gate that has a nonlinearity of its own and every layer
    of a deep transition that has ends."""
    found, ends = [], trace.cell.h_range
    if ends is not None:
        h = torch.stack([state[0] for state in trace.states[1:]]).detach()
        found.append(_saturation("h", h, ends))
    with torch.no_grad():
        for name in gate_names(trace.cell):
            ends = gate_range(trace.cell, name)
            if name != "cell" and ends is not None:
                found.append(_saturation(name, gate_values(trace, name), ends))
    return found


def _saturation(name: str, values: Tensor, ends: Range) -> Saturation:
    low, high = ends
    if math.isinf(high):
        return Saturation(name, _share(values == low), None)
    return Saturation(name, _share(values < low + NEAR), _share(values > high - NEAR))


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def read_training_norms(path: Path, clip_norm: float) -> TrainingNorms | None:
    """Of the metrics that a run has recorded; None if there are none. A record of a run by an
    earlier version tells of its last step, and of the largest norm at most."""
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise FileError.of("read", path, error) from None
    steps: list[int] = []
    norms: list[float] = []
    largest: list[float] = []
    counted = clipped = 0
    skipped: set[int] = set()
    for line in lines:
        event: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # a line that a kill cut short
            event = json.loads(line)
        if event.get("event") == "Skipped":
            skipped.add(event["step"] + 1)
        if event.get("event") == "StepReport" and event.get("gradient_norm") is not None:
            norm = event["gradient_norm"]
            last_alone = {"largest_gradient_norm": norm, "clipped_steps": 0.0 < clip_norm < norm}
            known = last_alone | {k: v for k, v in event.items() if v is not None}
            recorded = known.get("gradient_norms")
            of_each = recorded or [norm]
            before = (step for step in range(event["step"], 0, -1) if step not in skipped)
            steps += reversed(list(islice(before, len(of_each))))
            norms += of_each
            largest += recorded or [known["largest_gradient_norm"]]
            counted += known.get("steps", 1)
            clipped += known["clipped_steps"]
    if not steps:
        return None
    return TrainingNorms(steps, norms, largest, counted, clipped, clip_norm)
