"""The continuous cache: words seen lately become more probable where the state is alike.

Grave, Joulin and Usunier 2017, "Improving neural language models with a continuous cache", sec. 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.evaluation.language_model import Predicted


@dataclass(frozen=True)
class CacheConfig:
    """``window``: how many of the last pairs (h(i), x(i+1)) are kept; ``theta``: flatness, 0 makes
    it a unigram cache; ``weight``: the paper's lambda, the cache's part of the mixture. Raises
    UsageError for a value out of range."""

    window: int
    theta: float = 0.3
    weight: float = 0.1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UsageError(f"--cache-window {self.window}: it must be at least 1")
        if not (0.0 <= self.theta < math.inf):
            raise UsageError(f"--cache-theta {self.theta:g}: it must be at least 0")
        if not 0.0 <= self.weight < 1.0:
            raise UsageError(
                f"--cache-lambda {self.weight:g}: it must be at least 0 and below 1, the cache's "
                "part of the mixture"
            )

    @property
    def note(self) -> str:
        """For signatures."""
        return f"cache:window={self.window},theta={self.theta:g},lambda={self.weight:g}"


def add_cache(run: Iterable[Predicted], config: CacheConfig) -> Iterator[Predicted]:
    """The same pieces with the cache mixed in; each column of the text has a cache of its own.

    p(x(t+1)) = (1 - lambda) p_model(x(t+1)) + lambda p_cache(x(t+1)), where p_cache(w) is the sum
    over the window of exp(theta h(t).h(i)) 1[w = x(i+1)], normalised. The model stands alone while
    the window is empty. The text must be one whole stream, its state carried throughout.
    """
    keys: Tensor | None = None
    for part in run:
        if keys is None:
            keys, words = part.h[:0], part.targets[:0]
        nats = with_cache(part.nats, part.h, part.targets, keys, words, config)
        if part.mask is not None:
            nats.masked_fill_(~part.mask, 0.0)
        keys = torch.cat([keys, part.h])[-config.window :]
        words = torch.cat([words, part.targets])[-config.window :]
        yield replace(part, nats=nats)


def with_cache(
    nats: Tensor, h: Tensor, targets: Tensor, keys: Tensor, words: Tensor, config: CacheConfig
) -> Tensor:
    """The nats of a block (T, B) with the cache mixed in, in float64; a column, a cache.

    h: (T, B, H), targets: (T, B), and what was kept from before: keys (K, B, H), words (K, B).
    """
    found = torch.empty_like(nats, dtype=torch.float64)
    for column in range(nats.shape[1]):
        log_cache = _log_cache(
            h[:, column], targets[:, column], keys[:, column], words[:, column], config
        )
        found[:, column] = _mix(nats[:, column].double(), log_cache, config.weight)
    return found


def _log_cache(
    h: Tensor, targets: Tensor, keys: Tensor, words: Tensor, config: CacheConfig
) -> Tensor:
    """log p_cache of the targets (T,), NaN where the cache is empty.

    h: (T, H), targets: (T,), and what was kept from before: keys (K, H), words (K,), K at most
    ``window``. Row t sees the last ``window`` pairs before it, those of this block among them.
    """
    T, K = len(h), len(keys)
    keys, words = torch.cat([keys, h]), torch.cat([words, targets])
    age = torch.arange(T, device=h.device)[:, None] + K - torch.arange(K + T, device=h.device)
    outside = (age < 1) | (age > config.window)
    keys = keys.to(torch.promote_types(h.dtype, torch.float32))  # exponents need the digits
    logits = (
        (config.theta * (h.to(keys.dtype) @ keys.t())).double().masked_fill_(outside, -math.inf)
    )
    total = torch.logsumexp(logits, 1)
    logits.masked_fill_(targets[:, None] != words, -math.inf)
    return torch.logsumexp(logits, 1) - total


def _mix(nats: Tensor, log_cache: Tensor, weight: float) -> Tensor:
    """-log((1 - weight) exp(-nats) + weight exp(log_cache)) (T,), in float64."""
    if weight == 0.0:
        return nats
    mixed = -torch.logaddexp(math.log1p(-weight) - nats, math.log(weight) + log_cache)
    return torch.where(log_cache.isnan(), nats, mixed)
