"""What a run would be, and what it would cost: ``rnncli train --dry-run``."""

from __future__ import annotations

import math
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch

from rnncli import runtime as machine
from rnncli.config import Config
from rnncli.runtime import Runtime
from rnncli.text.corpus import load_corpus
from rnncli.text.tokenizers import load_sentencepiece
from rnncli.training.language_modelling import LanguageModelling
from rnncli.training.loop import VALIDATION_COST, Loop, Window
from rnncli.training.optimizers import optimizer_tensors
from rnncli.training.run_folder import RunFolder
from rnncli.training.signals import StopSignals

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
    tokenizer = config.tokenizer
    corpus = load_corpus(
        config.data, load_sentencepiece(tokenizer.model) if tokenizer.model else tokenizer
    )
    torch.manual_seed(config.seed)
    task = LanguageModelling(config, corpus, runtime)
    with tempfile.TemporaryDirectory() as scratch:  # a step that is not finite is recorded there
        loop = Loop(config, task, RunFolder(Path(scratch)), StopSignals(), time.monotonic())
        pieces = task.pieces
        step_seconds, tokens = _time_steps(loop)
    return [
        *_model_rows(config, task, loop),
        *_text_rows(task),
        *_step_rows(config, task, pieces, step_seconds),
        *_memory_rows(config, task, loop, runtime),
        *_time_rows(config, task, pieces, step_seconds, tokens),
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
    tokens = window.tokens / finite if finite else loop.task.train_tokens / loop.task.pieces
    return statistics.median(seconds), tokens


def _model_rows(config: Config, task: LanguageModelling, loop: Loop) -> list[Row]:
    model = config.model
    sizes = " + ".join(f"{size}" for size in model.layer_sizes())
    layers = f"{model.layers} layer{'s' * (model.layers > 1)}"
    first = "one-hot input" if model.input == "one-hot" else f"embedding {model.embedding_size}"
    last = "tied softmax" if model.tied else model.output
    return [
        ("model", f"{model.cell}, {layers} of {sizes}, {first}, {last}"),
        ("parameters", f"{sum(p.numel() for p in loop.parameters):,}"),
        ("vocabulary", f"{task.tokenizer.vocab_size:,} ({task.tokenizer.kind})"),
    ]


def _text_rows(task: LanguageModelling) -> list[Row]:
    return [
        ("training tokens", f"{task.train_tokens:,}"),
        ("validation tokens", f"{task.valid_tokens:,}" if task.valid_tokens else "none"),
    ]


def _step_rows(
    config: Config, task: LanguageModelling, pieces: int, step_seconds: float
) -> list[Row]:
    training = config.training
    unit = "streams" if training.state == "carried" else "lines"
    length = f"{training.bptt} tokens" if training.bptt else "whole lines"
    total, why = _total_steps(config, pieces, step_seconds)
    return [
        ("batch", f"{task.batch_size} {unit}, {length}"),
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


def _memory_rows(
    config: Config, task: LanguageModelling, loop: Loop, runtime: Runtime
) -> list[Row]:
    weights = sum(p.numel() * p.element_size() for p in loop.parameters)
    state = sum(t.nbytes for t in optimizer_tensors(loop.optimizer).values())
    if config.optimizer.averaging != "none":
        state += weights
    positions = _positions(config, task)
    item = runtime.dtype.itemsize
    activations = positions * item * _units_a_position(config)
    logits = positions * item * task.tokenizer.vocab_size
    rows = {
        "weights": weights,
        "gradients": weights,
        "optimizer state": state,
        "activations": activations,
        "logits": logits,
    }
    parts = ", ".join(f"{name} {_size(size)}" for name, size in rows.items())
    return [
        ("memory", f"about {_size(sum(rows.values()))}: {parts}"),
        ("memory in all", f"{_size(_peak_bytes(runtime))} at most in the timed steps (measured)"),
    ]


def _positions(config: Config, task: LanguageModelling) -> int:
    """Predictions of the usual step: B times T."""
    training = config.training
    if training.state == "carried":
        return training.bptt * task.batch_size
    return math.ceil(task.train_tokens / max(1, task.pieces))


def _units_a_position(config: Config) -> int:
    """Numbers kept for the backward pass at each position: of a layer its input, the gates before
    and after their nonlinearities, the cell and the output, each with its dropped copy."""
    gates = {"elman": 1, "gru": 3, "gru-cho2014": 3, "lstm": 4}[config.model.cell]
    sizes = config.model.layer_sizes()
    inputs = (config.model.embedding_size, *sizes[:-1])
    return sum(2 * i + (2 * gates + 4) * h for i, h in zip(inputs, sizes, strict=True))


def _peak_bytes(runtime: Runtime) -> int:
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _time_rows(
    config: Config, task: LanguageModelling, pieces: int, step_seconds: float, tokens: float
) -> list[Row]:
    training = config.training
    speed = tokens / step_seconds
    rows = [("speed", f"{1000 * step_seconds:.1f} ms a step, {speed:,.0f} tokens/s (measured)")]
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
