"""The hidden size at which a model has as many parameters as another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.evaluation.synthetic import open_problem
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.language_model import LanguageModel
from rnncli.models.music import MusicModel
from rnncli.models.sequence_reader import SequenceReader
from rnncli.sections import ModelConfig
from rnncli.text.corpus import load_corpus
from rnncli.text.music import KEYS
from rnncli.text.tokenizers import load_sentencepiece
from rnncli.training.translation import make_tokenizers, read_text

NEAR = 0.01
"""Among the sizes that are off by no more than this share, the roundest is taken: products of a
multiple of 32 units are faster."""

TOLERANCE = 0.02
"""The largest share by which two models of equal size may differ."""

_ROUND = (64, 32, 16, 8, 4, 2)
_LARGEST = 1 << 16
_GAP = 64
"""So many sizes in a row that a cell cannot have, and it is taken to have none beyond."""


Maker = Callable[[ModelConfig], nn.Module]


def model_maker(config: Config) -> Maker:
    """How a model of the task of ``config`` is made. The text is read where its vocabulary is a
    part of that; raises as ``load_corpus`` does."""
    if config.task == "music":
        return lambda model: MusicModel(model, KEYS)
    if config.task.startswith("synthetic:"):
        problem = open_problem(config)
        return lambda model: SequenceReader(model, problem.inputs, problem.outputs)
    if config.task == "translate":
        words, *own = (t.vocab_size for t in make_tokenizers(config, read_text(config.data)[0]))
        return lambda model: EncoderDecoder(model, words, *own)
    given = config.tokenizer.model
    tokenizer = config.tokenizer if given is None else load_sentencepiece(given)
    vocab_size = load_corpus(config.data, tokenizer).tokenizer.vocab_size
    return lambda model: LanguageModel(model, vocab_size)


def count_parameters(make: Maker, model: ModelConfig) -> int:
    """The weights of a model, counted without storing them. Raises UsageError for sizes that its
    cells cannot have."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(model).parameters())


def resized(model: ModelConfig, hidden_size: int) -> ModelConfig:
    """``model`` with other hidden layers. A tied embedding of the hidden size stays of that size:
    it is the size of the last layer."""
    follows = model.tied and model.embedding_size == model.hidden_size
    embedding_size = hidden_size if follows else model.embedding_size
    return dataclasses.replace(model, hidden_size=hidden_size, embedding_size=embedding_size)


def equal_model(make: Maker, model: ModelConfig, target: int, label: str) -> ModelConfig:
    """``model`` with the hidden size that gives it ``target`` parameters. Raises UsageError, which
    names ``label``, when no size does within ``TOLERANCE``."""

    def count(hidden_size: int) -> int:
        return count_parameters(make, resized(model, hidden_size))

    return resized(model, matching_size(count, target, label))


def matching_size(count: Callable[[int], int], target: int, label: str) -> int:
    """The size whose ``count`` is nearest to ``target``, or a rounder one that is near.

    ``count`` grows with the size, and raises UsageError for one that cannot be. Raises UsageError
    when nothing is within ``TOLERANCE``.
    """

    def off(size: int) -> float:
        try:
            return abs(count(size) / target - 1)
        except UsageError:
            return float("inf")

    above = _first_at_least(count, target)
    if above is not None:
        for step in _ROUND:
            size = round(above / step) * step
            if size and off(size) <= NEAR:
                return size
        below = next((s for s in range(above - 1, max(0, above - _GAP), -1) if off(s) < 1), above)
        best = min((below, above), key=off)
        if off(best) <= TOLERANCE:
            return best
        sizes = " and ".join(f"{count(s):,} with {s} units" for s in sorted({below, above}))
        raise UsageError(
            f"{label}: no hidden size gives {target:,} parameters within {TOLERANCE:.0%}; it has "
            f"{sizes}. Larger models can be matched more closely, or use --equal hidden"
        )
    raise UsageError(
        f"{label}: its hidden size does not bring it to {target:,} parameters; use --equal hidden"
    )


def _first_at_least(count: Callable[[int], int], target: int) -> int | None:
    """The smallest possible size with a ``count`` of at least ``target``, None without one."""

    def possible(size: int) -> tuple[int, int] | None:
        """The first possible size from ``size`` on, and its count."""
        for candidate in range(size, size + _GAP):
            try:
                return candidate, count(candidate)
            except UsageError:
                continue
        return None

    low, high = 1, 1
    while (found := possible(high)) is not None and found[1] < target:
        low, high = found[0] + 1, 2 * high
        if high > _LARGEST:
            return None
    if found is None:
        return None
    while low < high:
        middle = (low + high) // 2
        found = possible(middle)
        if found is not None and found[1] < target:
            low = found[0] + 1
        else:
            high = middle
    found = possible(low)
    return None if found is None else found[0]
