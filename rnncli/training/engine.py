"""The engine of a run by measurement: ``training.engine = "measured"``."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.nn.stack import Stack
from rnncli.sections import ENGINES, MEASURED
from rnncli.training.task import Task

WARM_UPS = 3
"""Steps before those that count; on a CUDA device the last of them records the loops."""
ROUNDS = 5
SECONDS = 2.0
"""Rounds end once a candidate has taken so long, so that a large model costs a few steps each."""


def settle_engine(config: Config, task: Task) -> tuple[Config, tuple[str, ...]]:
    """``config`` with the fastest engine for ``task`` by name in place of "measured", which
    ``task`` then runs by; and what was found, in words. A configuration with another engine stays.

    Each engine that all layers have makes the same steps in turn, forward and backward; the median
    decides. Nothing that is random later on depends on it.
    """
    if config.training.engine != MEASURED:
        return config, ()
    candidates = [name for name in ENGINES if _fits(name, config, task)]
    seconds = _take_turns(task, candidates)
    best = min(seconds, key=lambda name: seconds[name])
    task.run_as = replace(task.run_as, engine=best)
    each = ", ".join(f"{name} {1000 * seconds[name]:.1f} ms" for name in candidates)
    note = f"engine: {best}, measured on batches of this run ({each})"
    return config.with_values({"training.engine": best}), (note,)


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


def _take_turns(task: Task, names: list[str]) -> dict[str, float]:
    """Median seconds of a forward and backward pass by each engine."""
    device = task.runtime.device
    found: dict[str, list[float]] = {name: [] for name in names}
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        task.begin_epoch(0)
        for turn in range(WARM_UPS + ROUNDS):
            for name in names:
                began = time.monotonic()
                _step(task, name)
                if cuda:
                    torch.cuda.synchronize()
                found[name].append(time.monotonic() - began)
            if turn >= WARM_UPS and max(sum(times) for times in found.values()) > SECONDS:
                break
    task.model.zero_grad(set_to_none=True)
    return {name: statistics.median(times[WARM_UPS:]) for name, times in found.items()}


def _step(task: Task, engine: str) -> None:
    """The first piece of an epoch, as a step runs it."""
    task.run_as = replace(task.run_as, engine=engine)
    task.loss(0, sampled=False).objective.backward()  # type: ignore[no-untyped-call]
    task.accept(carry=False)
