"""Lines and their log-probabilities, each line by itself and the same whatever it is run with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rnncli.evaluation.language_model import nats_of_lines
from rnncli.loading import Loaded, Network
from rnncli.nn.stack import Run


@dataclass(frozen=True)
class LineScore:
    """tokens: the ids of ``line`` and the boundary that ends it; nats: -log p of each, (n + 1,);
    ``unknown``: which of them are the unknown one, (n + 1,)."""

    line: str
    tokens: tuple[int, ...]
    nats: npt.NDArray[np.float64]
    unknown: npt.NDArray[np.bool_]

    @property
    def total_nats(self) -> float:
        return float(self.nats.sum())

    @property
    def oov(self) -> int:
        return int(self.unknown.sum())


class LineScorer:
    """-log p of lines under a model, or under the mean of several models' probabilities.

    The state is reset at every line, which begins after the boundary; its end is counted. In
    float64, which is the default, the rounding that depends on which lines are run together is far
    below what anyone prints; float32 is about three times as fast, and its fifth decimal may vary.
    """

    def __init__(
        self,
        models: Sequence[Loaded],
        *,
        dtype: torch.dtype = torch.float64,
        lines_at_once: int = 32,
        strip_lines: bool = False,
    ) -> None:
        self.tokenizer = models[0].tokenizer
        self._models = [in_precision(loaded.model, dtype) for loaded in models]
        self._run_as = Run(dtype=dtype)
        self._lines_at_once = lines_at_once
        self._strip_lines = strip_lines

    def __call__(self, lines: Sequence[str]) -> list[LineScore]:
        if self._strip_lines:
            lines = [line.strip() for line in lines]
        boundary, unk = self.tokenizer.boundary_id, self.tokenizer.unk_id
        encoded = [self.tokenizer.encode(line) for line in lines]
        opinions = [
            nats_of_lines(
                model, encoded, boundary, lines_at_once=self._lines_at_once, run_as=self._run_as
            )
            for model in self._models
        ]
        scores = []
        for line, ids, *nats in zip(lines, encoded, *opinions, strict=True):
            tokens = (*ids, boundary)
            unknown = np.array([token == unk for token in tokens])
            scores.append(LineScore(line, tokens, _mean_probability(nats), unknown))
        return scores


def in_precision(model: Network, dtype: torch.dtype) -> Network:
    """``model``, whose weights are float32, or a copy of it in ``dtype``."""
    return model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)


def _mean_probability(nats: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """-log of the mean over models of exp(-nats), token by token."""
    if len(nats) == 1:
        return nats[0]
    mixed: npt.NDArray[np.float64] = np.log(len(nats)) - np.logaddexp.reduce([-n for n in nats])
    return mixed
