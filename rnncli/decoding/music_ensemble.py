"""Several models of music as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from rnncli.decoding.ensemble import EnsembleState
from rnncli.errors import UsageError
from rnncli.models.music import MusicModel
from rnncli.nn.keys import Choice, draw, mean_logits
from rnncli.nn.stack import Run
from rnncli.nn.state import State


class MusicEnsemble(nn.Module):
    """Several models of music as one: the chance of each key is the mean of theirs, given the same
    earlier frames and keys below. Raises UsageError for outputs of two kinds."""

    def __init__(self, models: Sequence[MusicModel]) -> None:
        super().__init__()
        self.output = models[0].output
        if len({type(model.output) for model in models}) > 1:
            raise UsageError(
                "model.output: in some of the models the keys of a frame are independent and in "
                "others not; an ensemble needs models of one kind"
            )
        self.models = nn.ModuleList(models)

    def _each(self) -> list[MusicModel]:
        return cast("list[MusicModel]", list(self.models))

    def logits(
        self, inputs: Tensor, targets: Tensor, state: EnsembleState, run_as: Run
    ) -> tuple[Tensor, EnsembleState]:
        """As ``MusicModel.logits``."""
        logits, parts = [], []
        for model, part in zip(self._each(), state.parts, strict=True):
            found, after = model.logits(inputs, targets, cast(State, part), run_as)
            logits.append(found)
            parts.append(after)
        return mean_logits(logits), EnsembleState(tuple(parts))

    def start(self, source: None, rows: int) -> EnsembleState:
        return EnsembleState(tuple(model.start(source, rows) for model in self._each()))

    def step(
        self, frames: Tensor, state: EnsembleState
    ) -> tuple[tuple[Tensor, ...], EnsembleState]:
        """As ``MusicModel.step``, with what each model reads."""
        pairs = zip(self._each(), state.parts, strict=True)
        reads, parts = zip(*(m.step(frames, cast(State, s)) for m, s in pairs), strict=True)
        return reads, EnsembleState(parts)

    def draw(self, read: tuple[Tensor, ...], choice: Choice) -> tuple[Tensor, Tensor]:
        """As ``MusicModel.draw``."""
        pairs = zip(self._each(), read, strict=True)
        return draw([model.output.walk(one) for model, one in pairs], choice)
