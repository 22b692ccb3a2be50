"""What a run would be, and what it would cost: ``rnncli train --dry-run``."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from torch import nn

from rnncli import runtime as machine
from rnncli.config import Config
from rnncli.nn.attentive_cell import AttentiveCell
from rnncli.nn.cells import Cell
from rnncli.nn.layered_cell import LayeredCell
from rnncli.nn.stack import Stack
from rnncli.runtime import Runtime
from rnncli.sections import MEASURED, ModelConfig
from rnncli.training.engine import settle_engine
from rnncli.training.loop import VALIDATION_COST, Loop
from rnncli.training.run_folder import RunFolder
from rnncli.training.signals import StopSignals
from rnncli.training.start import read_start
from rnncli.training.task import Task
from rnncli.training.tasks import open_task
from rnncli.training.window import Window

TIMED_SECONDS = 3.0
TIMED_STEPS = 20

Row = tuple[str, str]


def plan(config: Config) -> list[Row]:
    """Names and values: sizes, steps, an estimate of memory and, from a few steps of a model that
    is thrown away, of time.

    Raises FileError and DataError for text that cannot be used, UsageError for what does not fit
    this machine.
    """
    training = config.training
    runtime = machine.prepare(training.device, training.precision, training.threads)
    start = read_start(config)
    task = open_task(config, start.tokenizers if start else (), runtime, None)
    if start is not None:
        start.fill(task.model)
    measured = settle_engine(config, task, None)
    with tempfile.TemporaryDirectory() as scratch:  # a step that is not finite is recorded there
        loop = Loop(config, task, RunFolder(Path(scratch)), StopSignals(), time.monotonic())
        pieces = math.ceil(task.pieces / training.accumulate)
        step_seconds, tokens = _time_steps(loop)
    return [
        *_model_rows(config, task, loop),
        *_text_rows(task),
        *_step_rows(config, task, pieces, step_seconds),
        *_memory_rows(config, task, loop, runtime),
        *_time_rows(config, task, pieces, step_seconds, tokens),
        *(("engine", note.removeprefix("engine: ")) for note in measured),
        ("machine", runtime.describe()),
    ]


def _time_steps(loop: Loop) -> tuple[float, float]:
    """Median seconds and mean tokens of a step; the first step, which warms up, does not count."""
    loop.one_step(Window())
    seconds: list[float] = []
    window, finite = Window(), 0
    while len(seconds) < TIMED_STEPS and sum(seconds) < TIMED_SECONDS:
        if loop.piece >= loop.task.pieces:
            loop.piece = 0
            loop.task.begin_epoch(0)
        began = time.monotonic()
        finite += loop.one_step(window) is None
        seconds.append(time.monotonic() - began)
        loop.nonfinite_run = 0  # a run would end, a plan goes on
    tokens = window.tokens / finite if finite else loop.task.train_tokens / max(1, loop.task.pieces)
    return statistics.median(seconds), tokens


def _model_rows(config: Config, task: Task, loop: Loop) -> list[Row]:
    model, words, of_source = config.model, task.tokenizer, task.source_tokenizer
    first = "one-hot input" if model.input == "one-hot" else f"embedding {model.embedding_size}"
    last = "tied softmax" if model.tied else model.output
    ends = f"{first}, {last}" if words else f"{task.outputs} outputs"
    if config.task == "translate":
        encoder, decoder = (
            replace(one, tied=False) for one in (model.encoder_side(), model.sides()[0])
        )
        attention = "no attention"
        if model.attention != "none":
            attention = f"{model.attention} attention ({model.look_up})"
        rows = [
            ("encoder", f"{_layers(encoder)}, {model.direction}"),
            ("decoder", f"{_layers(decoder)}, {attention}, {ends}"),
        ]
    else:
        rows = [("model", f"{_layers(model)}, {ends}")]
    names = ("vocabulary", words), ("vocabulary of sources", of_source)
    return [
        *rows,
        ("parameters", f"{sum(p.numel() for p in loop.parameters):,}"),
        *((name, f"{one.vocab_size:,} ({one.kind})") for name, one in names if one is not None),
    ]


def _layers(model: ModelConfig) -> str:
    sizes = " + ".join(f"{size}" for size in model.layer_sizes())
    return f"{model.cell}, {model.layers} layer{'s' * (model.layers > 1)} of {sizes}"


def _text_rows(task: Task) -> list[Row]:
    units = f"{task.quantity.unit}s"
    return [
        (f"training {units}", f"{task.train_tokens:,}"),
        (f"validation {units}", f"{task.valid_tokens:,}" if task.valid_tokens else "none"),
    ]


def _step_rows(config: Config, task: Task, pieces: int, step_seconds: float) -> list[Row]:
    total, why = _total_steps(config, pieces, step_seconds)
    return [
        ("batch", task.batch_text),
        ("steps an epoch", f"{pieces:,}"),
        ("steps", f"{total:,} ({why})" if total else "until it is stopped"),
    ]


def _total_steps(config: Config, pieces: int, step_seconds: float) -> tuple[int, str]:
    """How many steps the nearest limit leaves, and which it is; 0 without a limit."""
    training = config.training
    limits: list[tuple[int, str]] = []
    if training.epochs:
        limits.append((training.epochs * pieces, f"{training.epochs} epochs"))
    if training.max_steps:
        limits.append((training.max_steps, "training.max_steps"))
    if training.max_seconds:
        steps = max(1, int(training.max_seconds / step_seconds))
        limits.append((steps, f"about as many as {training.max_seconds:g} s allow"))
    return min(limits, default=(0, ""))


def _memory_rows(config: Config, task: Task, loop: Loop, runtime: Runtime) -> list[Row]:
    weights = sum(p.numel() * p.element_size() for p in loop.parameters)
    state = sum(t.nbytes for t in loop.optimizer.tensors().values())
    if config.optimizer.averaging != "none":
        state += weights
    item = runtime.dtype.itemsize
    activations = task.positions * item * _units_a_position(task.model)
    logits = task.positions * item * task.outputs
    rows = {
        "weights": weights,
        "gradients": weights,
        "optimizer state": state,
        "activations": activations,
        "logits": logits,
    }
    parts = ", ".join(f"{name} {_size(size)}" for name, size in rows.items())
    peak = _size(machine.peak_bytes(runtime.device))
    measured = config.training.engine == MEASURED and runtime.device.type == "cpu"
    timed = "all that was timed, every engine" if measured else "the timed steps"
    return [
        ("memory", f"about {_size(sum(rows.values()))}: {parts}"),
        ("memory in all", f"{peak} at most in {timed} (measured)"),
    ]


def _units_a_position(model: nn.Module) -> int:
    """Numbers kept for the backward pass at each position: of a layer its input, the gates before
    and after their nonlinearities, the cell and the output, each with its dropped copy."""
    stacks = [module for module in model.modules() if isinstance(module, Stack)]
    cells: list[Cell] = []
    for cell in (cell for stack in stacks for cell in stack.layers):
        inner = cell.cell if isinstance(cell, AttentiveCell) else cell
        cells += inner.layers if isinstance(inner, LayeredCell) else [cell]
    return sum(2 * c.input_size + 2 * _sums(c) + 4 * c.hidden_size for c in cells)


def _sums(cell: Cell) -> int:
    """Rows of all matrices that multiply something within a time step, or those of W_xh."""
    within = sum(len(weight) for weight in cell.step_weights().values())
    return max(cell.gates * cell.hidden_size, within)


def _time_rows(
    config: Config, task: Task, pieces: int, step_seconds: float, tokens: float
) -> list[Row]:
    training = config.training
    speed = tokens / step_seconds
    rows = [
        (
            "speed",
            f"{1000 * step_seconds:.1f} ms a step, {speed:,.0f} {task.quantity.unit}s/s (measured)",
        )
    ]
    total, _ = _total_steps(config, pieces, step_seconds)
    if not total:
        return rows
    validations = math.ceil(total / (training.valid_every_steps or pieces))
    valid_seconds = VALIDATION_COST * task.valid_tokens / speed
    seconds = total * step_seconds + validations * valid_seconds
    if training.max_seconds:
        seconds = min(seconds, training.max_seconds)
    return [*rows, ("time", f"about {_duration(seconds)}, {validations:,} validations included")]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _size(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
