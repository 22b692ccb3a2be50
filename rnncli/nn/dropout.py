"""Dropout in the forms that recurrent networks use."""

from __future__ import annotations

import math

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
    """A mask of 0 and 1 / (1 - rate) in the type and on the device of ``like``.

    Four values are cut from each 64 random bits, which takes a quarter of the time of
    ``bernoulli_``; the rate is met to 1 / 65536.
    """
    size = math.prod(shape)
    bits = torch.empty((size + 3) // 4, dtype=torch.int64, device=like.device)
    bits.random_(-(2**63), None)
    keep = bits.view(torch.int16)[:size] >= min(round(rate * 65536) - 32768, 32767)
    return keep.to(like.dtype).mul_(1.0 / (1.0 - rate)).view(shape)
