"""The engine of a run by measurement: ``training.engine = "measured"``."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch

from rnncli.config import Config
from rnncli.errors import UsageError, is_out_of_memory
from rnncli.nn.cells import Cell
from rnncli.nn.recurrence.recorded import forget
from rnncli.nn.stack import Stack
from rnncli.sections import ENGINES, MEASURED
from rnncli.training.task import Task

WARM_UPS = 3
"""Turns before those that count; on a CUDA device loops are recorded in them."""
TURNS = 8
FEWEST = 2
"""With fewer turns that count nothing is known, and ``auto`` stays."""
SECONDS = 8.0
"""Turns end after so long, or after a tenth of the run's time."""
WORTH_IT = 0.97
"""``auto``, which chooses for each layer by itself, stays unless this share of its time is enough
for another one."""


def settle_engine(config: Config, task: Task, found: str | None) -> tuple[str, ...]:
    """Where ``config`` says "measured", let ``task`` run by the engine that is the fastest for it;
    returns what was measured, in words. ``found``: the one that the run had before.

    Each engine that all layers have runs the first pieces of an epoch in turn, forward and
    backward. Nothing that is random later on depends on it.
    """
    if config.training.engine != MEASURED:
        return ()
    if found is not None:
        task.run_as = replace(task.run_as, engine=found)
        return ()
    names = [name for name in ENGINES if _fits(name, config, task)]
    limit = SECONDS
    if config.training.max_seconds:
        limit = min(limit, 0.1 * config.training.max_seconds)
    seconds = _take_turns(task, names, limit)
    if not seconds:
        task.run_as = replace(task.run_as, engine="auto")
        return ("engine: auto; a step takes too long for a measurement of the others",)
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] > WORTH_IT * seconds.get("auto", float("inf")):
        best = "auto"
    task.run_as = replace(task.run_as, engine=best)
    each = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    return (f"engine: {best}, measured on batches of this run ({each})",)


def _fits(name: str, config: Config, task: Task) -> bool:
    """Whether ``name`` may be chosen; the reference loop never is the fastest in training."""
    if name in (MEASURED, "reference"):
        return False
    try:
        config.with_values({"training.engine": name})
        for module in task.model.modules():
            if isinstance(module, Stack):
                module.require_engine(name)
    except UsageError:
        return False
    return True


def _take_turns(task: Task, names: list[str], limit: float) -> dict[str, float]:
    """Median seconds of a forward and backward pass by each engine, without those for which there
    is no memory; none where ``limit`` seconds are too few. Raises RuntimeError where there is
    memory for no engine."""
    device = task.runtime.device
    cuda = [device] if device.type == "cuda" else []
    found: dict[str, list[float]] = {name: [] for name in names}
    began = time.monotonic()
    with torch.random.fork_rng(cuda):
        task.begin_epoch(0)
        for turn in range(TURNS):
            for name in list(found):
                try:
                    found[name].append(_time(task, name, turn % max(1, task.pieces)))
                except RuntimeError as error:
                    if not is_out_of_memory(error) or len(found) == 1:
                        raise
                    del found[name]
            if time.monotonic() - began > limit:
                break
    task.model.zero_grad(set_to_none=True)
    for module in task.model.modules():
        if isinstance(module, Cell):
            forget(module)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    counted = {name: times[WARM_UPS:] for name, times in found.items()}
    if any(len(times) < FEWEST for times in counted.values()):
        return {}
    return {name: statistics.median(times) for name, times in counted.items()}


def _time(task: Task, engine: str, piece: int) -> float:
    """Seconds of ``piece``, as a step runs it."""
    task.run_as = replace(task.run_as, engine=engine)
    began = time.monotonic()
    objective = task.loss(piece, sampled=False).objective
    if objective.requires_grad:  # else there was nothing to learn from
        objective.backward()  # type: ignore[no-untyped-call]
    task.accept(carry=False)
    if task.runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - began
