"""log p(target | source) of pairs, each pair by itself and the same whatever it is run with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.evaluation.scoring import LineScore, in_precision
from rnncli.loading import LoadedTranslator
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.nn.stack import Run
from rnncli.text.pairs import (
    EncodedPairs,
    Pair,
    encode_pairs,
    group_by_length,
    source_batch,
    target_batch,
)


class PairScorer:
    """-log p of targets given their sources, under one model or under an ensemble of several.

    A target begins after the boundary; its end is counted. A source may be empty: the encoder then
    reads its end alone. Several models are one distribution as ``rnncli.decoding.ensemble`` has it
    and ``translate`` searches it: the mean of their log-probabilities, normalised at every step.
    In float64, which is the default, the rounding that depends on which pairs are run together is
    far below what anyone prints.
    """

    def __init__(
        self,
        models: Sequence[LoadedTranslator],
        *,
        dtype: torch.dtype = torch.float64,
        pairs_at_once: int = 32,
    ) -> None:
        self.tokenizer = models[0].tokenizer  # of the targets
        self._source_tokenizer = models[0].source_tokenizer or self.tokenizer
        self._reverse = models[0].config.model.reverse_source
        self._models = [in_precision(loaded.model, dtype) for loaded in models]
        self._run_as = Run(dtype=dtype)
        self._pairs_at_once = pairs_at_once

    @property
    def reads_any_bytes(self) -> bool:
        """Whether both sides may have bytes that are not UTF-8, as surrogate escapes (PEP 383)."""
        return self._source_tokenizer.kind == self.tokenizer.kind == "byte"

    def __call__(self, pairs: Sequence[Pair]) -> list[LineScore]:
        """For each pair the score of its target."""
        encoded = encode_pairs(pairs, self._source_tokenizer, self.tokenizer, reverse=self._reverse)
        lengths = np.array([len(source) for source in encoded.sources], np.int64)
        seconds = np.array([len(target) for target in encoded.targets], np.int64)
        nats: list[npt.NDArray[np.float64]] = [np.empty(0)] * len(pairs)
        with torch.inference_mode():
            for group in group_by_length(lengths, seconds, self._pairs_at_once, None):
                found = self._nats(encoded, group).double().cpu().numpy()
                for column, number in enumerate(group.tolist()):
                    nats[number] = found[: seconds[number] + 1, column].copy()
        boundary, unk = self.tokenizer.boundary_id, self.tokenizer.unk_id
        scores = []
        for (_, line), target, each in zip(pairs, encoded.targets, nats, strict=True):
            tokens = (*target.tolist(), boundary)
            unknown = np.array([token == unk for token in tokens])
            scores.append(LineScore(line, tokens, each, unknown))
        return scores

    def _nats(self, encoded: EncodedPairs, group: npt.NDArray[np.int64]) -> Tensor:
        """The pairs ``group``, whose sources have one length -> -log p of every target (T, B), of
        any value where a shorter target is over."""
        sources = [encoded.sources[number] for number in group]
        lines = [encoded.targets[number] for number in group]
        arrays = (
            source_batch(sources, self._source_tokenizer.boundary_id),
            *target_batch(lines, self.tokenizer.boundary_id)[:2],
        )
        device = self._models[0].source_embedding.weight.device
        source, inputs, targets = (torch.from_numpy(array).to(device) for array in arrays)
        if len(self._models) == 1:
            return self._models[0].nats(source, inputs, targets, self._run_as)
        return _nats_of_several(self._models, source, inputs, targets, self._run_as)


def _nats_of_several(
    models: Sequence[EncoderDecoder], source: Tensor, inputs: Tensor, targets: Tensor, run_as: Run
) -> Tensor:
    """source: (S, B); inputs, targets: (T, B) -> -log p under the ensemble (T, B), step by step:
    one distribution over the vocabulary a model is in memory, not one for every target."""
    states = [model.encode(source, run_as, None) for model in models]
    nats = []
    for tokens, expected in zip(inputs, targets, strict=True):
        opinions = []
        for number, model in enumerate(models):
            logits, states[number] = model.step(tokens, states[number])
            opinions.append(torch.log_softmax(logits, 1))
        mean = torch.stack(opinions).mean(0)
        nats.append(F.cross_entropy(mean, expected, reduction="none"))
    return torch.stack(nats)
