"""Where truncated backpropagation through time cuts a sequence."""

from __future__ import annotations

import numpy as np

from rnncli.errors import UsageError
from rnncli.sections import TrainingConfig


def require_pieces(training: TrainingConfig) -> None:
    """Raise UsageError for lengths to be drawn where nothing is cut."""
    if training.bptt_variable and not training.bptt:
        raise UsageError(
            "training.bptt_variable: lengths are drawn near bptt, and bptt = 0 cuts nothing; use "
            "bptt_variable = false, or a bptt"
        )


def cuts(length: int, training: TrainingConfig, rng: np.random.Generator) -> list[int]:
    """Where pieces begin in ``length`` predictions, and the end: every ``training.bptt``, or at
    lengths drawn near it, or the whole with 0."""
    bptt = training.bptt
    if bptt == 0:
        return [0, length]
    if not training.bptt_variable:
        return [*range(0, length, bptt), length]
    places = [0]
    while places[-1] < length:  # Merity et al. 2017, sec. 4.1
        base = bptt if rng.random() < 0.95 else bptt / 2
        places.append(places[-1] + max(5, int(rng.normal(base, 5))))
    return [*places[:-1], length]
