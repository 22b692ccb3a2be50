"""Sampling music: one frame after the other, several pieces at once, each with its own random
numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rnncli.decoding.protocol import S, Stepper
from rnncli.decoding.sampling import Uniform
from rnncli.errors import DataError, UsageError
from rnncli.nn.keys import Choice, frame_nats


@dataclass(frozen=True)
class FrameLimits:
    """How many frames to write, and how boldly: ``temperature`` divides the logits of every key,
    ``greedy`` lets those keys sound that are more probable than not. Raises UsageError for a value
    out of range."""

    frames: int
    temperature: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise UsageError(
                f"max_new_tokens: {self.frames} frames is out of range; it must be at least 0"
            )
        if not 0.0 < self.temperature < float("inf"):
            raise UsageError(
                f"temperature: {self.temperature:g} is out of range; it must be above 0 "
                "(for the most probable frame at every step ask for greedy)"
            )


@dataclass(frozen=True)
class SampledPiece:
    """Piece ``row``: frames (T, K) bool, those after the opening; ``logprob``: their nats under the
    model itself, whatever the temperature."""

    row: int
    frames: Tensor
    logprob: float


class FrameStepper(Stepper[None, S], Protocol[S]):
    """The step contract with frames for tokens, what a step gives being for ``draw`` alone."""

    def draw(self, read: Any, choice: Choice) -> tuple[Tensor, Tensor]:
        """``read``: from ``step`` -> the next frame (B, K) and its keys' logits (B, K)."""
        ...


def sample_frames(
    stepper: FrameStepper[Any], opening: Tensor, *, rows: int, limits: FrameLimits, seed: int
) -> list[SampledPiece]:
    """Continue ``opening`` (N, K), which may have no frame, in ``rows`` ways.

    The random numbers of piece k depend on ``seed`` and k alone. Raises DataError when the model's
    probabilities are no numbers.
    """
    with torch.inference_mode():
        state = stepper.start(None, 1)
        frame = opening.new_zeros(1, opening.shape[1])
        for following in opening:
            _, state = stepper.step(frame, state)
            frame = following.unsqueeze(0)
        state = state.select(torch.zeros(rows, dtype=torch.int64, device=opening.device))
        frame = frame.expand(rows, -1)
        uniform = Uniform(seed, rows, opening.shape[1])
        nats = torch.zeros(rows, dtype=torch.float64, device=opening.device)
        written: list[Tensor] = []
        for _ in range(limits.frames):
            read, state = stepper.step(frame, state)
            drawn = uniform.next(range(rows)).to(frame.device)
            sounds, logits = stepper.draw(read, _Choice(drawn, limits))
            if not bool(logits.isfinite().all()):
                raise DataError(
                    "the model's probabilities are not numbers; its weights are damaged"
                )
            frame = sounds.to(opening.dtype)
            nats += frame_nats(logits.double(), sounds.double())
            written.append(sounds)
        empty = torch.empty(0, rows, opening.shape[1], dtype=torch.bool)
        pieces = torch.stack(written).cpu() if written else empty
    return [SampledPiece(k, pieces[:, k], -float(nats[k])) for k in range(rows)]


@dataclass(frozen=True)
class _Choice:
    """Whether keys sound; ``u``: (B, K), uniform between 0 and 1."""

    u: Tensor
    limits: FrameLimits

    def __call__(self, keys: slice, logits: Tensor) -> Tensor:
        """logits: (B, n), of these keys -> (B, n)."""
        if self.limits.greedy:
            return logits > 0
        return self.u[:, keys] < torch.sigmoid(logits.double() / self.limits.temperature)
