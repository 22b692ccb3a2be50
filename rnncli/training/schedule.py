"""The learning rate over time."""

from __future__ import annotations

import math

from rnncli.sections import ScheduleConfig


class Schedule:
    """``factor`` times ``optimizer.lr`` is the rate of a step. Only newbob remembers anything:
    ``decays``, how often it has cut the rate."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.decays = 0

    def factor(self, step: int, epoch: int, progress: float) -> float:
        """For the step after ``step`` steps, in epoch 0, 1, ..., ``progress`` of the run done."""
        config = self.config
        warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.name == "newbob":
            return float(warmup * config.decay**self.decays)
        if config.name == "step":
            past = max(0, epoch - config.decay_after_epochs + 1)
            return float(warmup * config.decay ** math.ceil(past / config.decay_every_epochs))
        if config.name == "cosine":
            low = config.final_fraction
            half = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
            return warmup * (low + (1 - low) * half)
        return warmup

    def validated(self, score: float, best: float) -> None:
        """newbob: cut the rate unless ``score`` improves the earlier ``best`` by the threshold."""
        if self.config.name == "newbob" and score * self.config.newbob_threshold >= best:
            self.decays += 1
