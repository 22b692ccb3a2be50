"""Models small enough to enumerate, and decoders for their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class History:
    """The token before the last one, and the source: (B,) each."""

    before: Tensor
    source: Tensor

    def select(self, rows: Tensor) -> History:
        return History(self.before[rows], self.source[rows])

    def regroup(self, rows: Tensor, sources: Tensor | None) -> History:
        return self.select(rows)


class Chain:
    """A second-order Markov chain for each of several sources: logits table[source, x, y] after x
    and y. Remembers how many rows it was asked for at every step."""

    def __init__(
        self, vocab_size: int, sources: int = 1, seed: int = 0, scale: float = 2.0
    ) -> None:
        torch.manual_seed(seed)
        self.table = torch.randn(sources, vocab_size, vocab_size, vocab_size) * scale
        self.batches: list[int] = []

    def start(self, source: Tensor | None, rows: int) -> History:
        zero = torch.zeros(rows, dtype=torch.int64)
        return History(zero, zero if source is None else source)

    def step(self, tokens: Tensor, state: History) -> tuple[Tensor, History]:
        self.batches.append(len(tokens))
        logits = self.table[state.source, state.before, tokens]
        return logits, History(tokens, state.source)

    def logprob(self, tokens: Sequence[int], source: int = 0, first: int = 0) -> float:
        """log p of ``tokens`` after ``first``."""
        total, before, last = 0.0, 0, first
        for token in tokens:
            log_p = torch.log_softmax(self.table[source, before, last].double(), 0)
            total += float(log_p[token])
            before, last = last, token
        return total


class Letters:
    """A decoder that spells token k as ``spellings[k]``."""

    def __init__(self, spellings: Sequence[str] = "abcdefghijklmnopqrstuvwxyz") -> None:
        self.spellings = spellings

    def push(self, token: int) -> str:
        return self.spellings[token]

    def finish(self) -> str:
        return ""
