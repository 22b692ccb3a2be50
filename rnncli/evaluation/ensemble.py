"""Several opinions on one text: an ensemble's models, or one model under several dropout masks.

The probability of a token is the mean of its probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.evaluation.language_model import Predicted
from rnncli.loading import Loaded, load_language_model
from rnncli.sections import RegularizationConfig


def load_ensemble(paths: Sequence[Path], device: torch.device | str = "cpu") -> list[Loaded]:
    """The models in ``paths``, ready to be averaged.

    Raises UsageError when they do not share one tokenizer, and as ``load_language_model`` does.
    """
    loaded = [load_language_model(path, device) for path in paths]
    for other in loaded[1:]:
        if other.tokenizer.fingerprint != loaded[0].tokenizer.fingerprint:
            raise UsageError(
                f"{other.path}: its tokenizer ({other.tokenizer.kind}, "
                f"{other.tokenizer.vocab_size} tokens) is not that of {loaded[0].path} "
                f"({loaded[0].tokenizer.kind}, {loaded[0].tokenizer.vocab_size} tokens); "
                "the models of an ensemble must have been trained with the same one"
            )
    return loaded


def mean_probability(runs: Sequence[Iterator[Predicted]]) -> Iterator[Predicted]:
    """One run over the text from several in step, each over the same pieces.

    nats = -log(1/M sum over m of p_m), in float64; ``h`` is the first run's.
    """
    for parts in zip(*runs, strict=True):
        log_p = -torch.stack([part.nats.double() for part in parts])
        nats = math.log(len(parts)) - torch.logsumexp(log_p, 0)
        if parts[0].mask is not None:
            nats = nats.masked_fill(~parts[0].mask, 0.0)
        yield replace(parts[0], nats=nats)


def dropout_rates(config: Config) -> RegularizationConfig:
    """The rates that the model was trained with, for Monte-Carlo dropout (Gal and Ghahramani 2016).

    Raises UsageError when all of them are 0.
    """
    rates = config.regularization
    if not any(
        (rates.dropout, rates.input_rate, rates.output_rate, rates.dropout_embedding,
         rates.dropout_state, rates.weight_drop)
    ):  # fmt: skip
        raise UsageError(
            "--mc-dropout: the model was trained without dropout, so every pass would be the same"
        )
    return rates
