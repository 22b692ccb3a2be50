"""What attention says about a translation: which source words it is of, and what it left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Alignment = tuple[tuple[int, int], ...]
"""(source word, target word), both from 0, by target word: Pharaoh's pairs."""

_LEAST = 1e-30


def coverage(weights: Tensor) -> float:
    """sum_i log(min(sum_j p_ij, 1)), i over source tokens and j over target tokens: 0 where all of
    the source was looked at, less where some was not (Wu et al. 2016, sec. 7, eq. 14, without
    beta). weights: (T, S), how much each target token looked at each source token."""
    return float(weights.double().sum(0).clamp(_LEAST, 1.0).log().sum())


def source_words_of(weights: Tensor, target: Sequence[int], source: Sequence[int]) -> list[int]:
    """For each target word the source word that it looked at most, all pieces of both taken
    together. weights: (T, S); target: (T,) and source: (S,), the word of each piece."""
    if not target or not source:
        return []
    rows = torch.zeros(max(target) + 1, len(source)).index_add_(
        0, torch.tensor(target), weights.float()
    )
    mass = torch.zeros(len(rows), max(source) + 1).index_add_(1, torch.tensor(source), rows)
    words: list[int] = mass.argmax(1).tolist()
    return words


def align(weights: Tensor, target: Sequence[int], source: Sequence[int]) -> Alignment:
    """The pairs of ``source_words_of``."""
    found = source_words_of(weights, target, source)
    return tuple((s, t) for t, s in enumerate(found))


def pharaoh(alignment: Alignment) -> str:
    """``0-0 2-1``: source word - target word."""
    return " ".join(f"{s}-{t}" for s, t in alignment)
