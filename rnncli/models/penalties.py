"""What training adds to the loss to hold the hidden units (Merity et al. 2017, sec. 4.6)."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncli.sections import RegularizationConfig


def activation_penalty(
    raw: Tensor, h: Tensor, mask: Tensor | None, rates: RegularizationConfig
) -> Tensor:
    """AR on the dropped output h, TAR on the raw one, each (T, B, H); mask: (T, B), false for
    padding. A scalar."""
    penalty = h.new_zeros((), dtype=torch.float32)
    if rates.activation_penalty:
        penalty = penalty + rates.activation_penalty * _mean_square(h, mask)
    if rates.temporal_activation_penalty and len(raw) > 1:
        change = _mean_square(raw[1:] - raw[:-1], None if mask is None else mask[1:])
        penalty = penalty + rates.temporal_activation_penalty * change
    return penalty


def _mean_square(v: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of the squares of v (T, B, H) where ``mask`` (T, B) is true; 0 if it nowhere is."""
    kept = v.float() if mask is None else v[mask].float()
    return kept.pow(2).mean() if len(kept) else kept.sum()
