"""Dropout in the forms that recurrent networks use."""

from __future__ import annotations

import torch
from torch import Tensor


def dropout(x: Tensor, rate: float, *, locked: bool) -> Tensor:
    """x: (T, B, H) with units zeroed and the rest scaled by 1 / (1 - rate).

    ``locked`` draws one mask (B, H) for all time steps (Gal and Ghahramani 2016).
    """
    if rate == 0.0:
        return x
    shape = (1, *x.shape[1:]) if locked else x.shape
    return x * keep_mask(shape, rate, x)


def drop_weights(weight: Tensor, rate: float) -> Tensor:
    """A recurrent matrix with connections zeroed at all time steps (Merity et al. 2017, sec. 3)."""
    return weight if rate == 0.0 else weight * keep_mask(weight.shape, rate, weight)


def embedding_row_scale(size: int, rate: float, like: Tensor) -> Tensor:
    """(V, 1): 0 for dropped words, else 1 / (1 - rate); a word is dropped everywhere in the batch
    (Gal and Ghahramani 2016, sec. 4.2)."""
    return keep_mask((size, 1), rate, like)


def keep_mask(shape: tuple[int, ...] | torch.Size, rate: float, like: Tensor) -> Tensor:
    """A mask of 0 and 1 / (1 - rate) in the type and on the device of ``like``."""
    mask = torch.empty(shape, dtype=torch.float32, device=like.device).bernoulli_(1.0 - rate)
    return mask.div_(1.0 - rate).to(like.dtype)
