"""The step contract: all that sampling, beam search and ensembles know of a model."""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar

from torch import Tensor


class DecoderState(Protocol):
    """What a model remembers, one row a hypothesis; passed and returned, never changed in place."""

    def select(self, rows: Tensor) -> Self:
        """The state of ``rows`` (int64, any length, repeats allowed), in that order."""
        ...

    def regroup(self, rows: Tensor, sources: Tensor | None) -> Self:
        """The state of ``rows`` (S * K,) as K hypotheses for each of S sources, side by side; all K
        rows of a source were its own. ``sources``: (S,) which of the sources so far these are, None
        for all of them in their order. What belongs to a source need not be kept once a row: after
        this a state is regrouped again, never selected from."""
        ...


Source = TypeVar("Source", contravariant=True)
S = TypeVar("S", bound=DecoderState)


class Stepper(Protocol[Source, S]):
    """A model that predicts the next token from the tokens before it."""

    def start(self, source: Source, rows: int) -> S:
        """The state before the first token."""
        ...

    def step(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """tokens: (B,) -> logits of the next ones (B, V), in float32, and the state after."""
        ...


AnyStepper = Stepper[Any, Any]
