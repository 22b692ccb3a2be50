"""Several models as one: the mean of their probabilities, or of their log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnncli.decoding.protocol import AnyStepper, DecoderState


@dataclass(frozen=True)
class EnsembleState:
    """The states of the models, in their order."""

    parts: tuple[DecoderState, ...]

    def select(self, rows: Tensor) -> EnsembleState:
        return EnsembleState(tuple(part.select(rows) for part in self.parts))

    def regroup(self, rows: Tensor, sources: Tensor | None) -> EnsembleState:
        return EnsembleState(tuple(part.regroup(rows, sources) for part in self.parts))


class Ensemble:
    """A Stepper made of steppers with one vocabulary and one kind of source.

    ``mixed``: a token's probability is the mean of its probabilities, as ``evaluate`` and ``score``
    take language models together; else that of its log-probabilities, as translators are.
    """

    def __init__(self, steppers: Sequence[AnyStepper], *, mixed: bool) -> None:
        self.steppers, self.mixed = tuple(steppers), mixed

    def start(self, source: Any, rows: int) -> EnsembleState:
        return EnsembleState(tuple(stepper.start(source, rows) for stepper in self.steppers))

    def step(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """As Stepper; the logits are log-probabilities, or those less a number that is the same for
        a whole row."""
        pairs = zip(self.steppers, state.parts, strict=True)
        logits, parts = zip(*[stepper.step(tokens, part) for stepper, part in pairs], strict=True)
        log_p = torch.stack([torch.log_softmax(one.float(), -1) for one in logits])
        together = torch.logsumexp(log_p, 0) - math.log(len(parts)) if self.mixed else log_p.mean(0)
        return together, EnsembleState(parts)
