"""What sampling leaves out: functions from logits (..., V) to logits, -inf for tokens left out.

Tokens with equal logits are kept or left out together, so that the order of the vocabulary never
decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rnncli.errors import UsageError

NEVER = -math.inf

_HEAD = 256
"""So many of the most probable tokens top-p looks at before it sorts them all."""


def forbid(logits: Tensor, ids: Tensor) -> Tensor:
    """Leave out the tokens ``ids`` (N,) int64."""
    return logits.index_fill(-1, ids, NEVER)


def divide_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution."""
    # From the largest on: those of any temperature are numbers.
    return (logits - logits.amax(-1, keepdim=True)) / max(temperature, 1e-30)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` most probable tokens (Fan et al. 2018, sec. 5.4)."""
    if k >= logits.shape[-1]:
        return logits
    return _keep_from(logits, logits.topk(k).values[..., -1:])


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest most probable tokens whose mass is at least ``p`` (Holtzman et al. 2020)."""
    total = torch.logsumexp(logits, -1, keepdim=True)
    size = logits.shape[-1]
    ordered = logits.topk(min(_HEAD, size)).values
    mass = (ordered - total).exp().cumsum(-1)
    if ordered.shape[-1] < size and bool((mass[..., -1] < p).any()):
        ordered = logits.sort(-1, descending=True).values
        mass = (ordered - total).exp().cumsum(-1)
    # The last one kept is the first at which the mass is reached; rounding may keep it from 1.
    last = (mass < p).sum(-1, keepdim=True).clamp_max(ordered.shape[-1] - 1)
    return _keep_from(logits, ordered.gather(-1, last))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least ``p`` times as probable as the first one (Nguyen et al. 2024)."""
    return _keep_from(logits, logits.amax(-1, keepdim=True) + math.log(p))


def _keep_from(logits: Tensor, least: Tensor) -> Tensor:
    """Leave out what is below ``least`` (..., 1)."""
    return logits.masked_fill(logits < least, NEVER)


@dataclass(frozen=True)
class Filters:
    """The filters asked for, applied in this order: forbidden tokens, temperature, top-k, top-p,
    min-p. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 leave out nothing. Raises UsageError for a value
    out of range."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    forbidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (0.0 < self.temperature < math.inf):
            raise UsageError(
                f"temperature: {self.temperature:g} is out of range; it must be above 0 "
                "(for the most probable token at every step ask for greedy)"
            )
        if self.top_k < 0:
            raise UsageError(f"top_k: {self.top_k} is out of range; it must be at least 0")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(
                f"top_p: {self.top_p:g} is out of range; it must be above 0 and at most 1"
            )
        if not 0.0 <= self.min_p <= 1.0:
            raise UsageError(f"min_p: {self.min_p:g} is out of range; it must be from 0 to 1")

    def __call__(self, logits: Tensor) -> Tensor:
        """logits: (..., V) -> the same, filtered."""
        if self.forbidden:
            logits = forbid(logits, torch.tensor(self.forbidden, device=logits.device))
        if self.temperature != 1.0:
            logits = divide_by_temperature(logits, self.temperature)
        if self.top_k:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p < 1.0:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p:
            logits = keep_min_p(logits, self.min_p)
        return logits
