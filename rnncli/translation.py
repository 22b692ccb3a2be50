"""Lines translated by encoder-decoders: source text in, hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rnncli.decoding.beam import BeamOptions, beam_search
from rnncli.decoding.ensemble import Ensemble
from rnncli.decoding.protocol import AnyStepper
from rnncli.errors import UsageError
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.prepared_decoder import prepare_decoder
from rnncli.text.pairs import group_by_length, source_batch
from rnncli.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Translated:
    """A translation. ``logprob``: nats, the end counted; ``score``: after the length penalty;
    ``finished``: it ended by itself rather than at the greatest length; ``tokens``: its ids without
    the end."""

    text: str
    logprob: float
    score: float
    finished: bool
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class SearchOptions:
    """How translations are searched for. A translation has at most ``max_ratio`` times its
    source's tokens and ``max_extra`` more, and no more than ``max_new_tokens``."""

    beam_size: int = 5
    batch_size: int = 32
    length_penalty: float = 1.0
    max_ratio: float = 2.0
    max_extra: int = 10
    max_new_tokens: int = 500

    def __post_init__(self) -> None:
        for name in ("beam_size", "batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name)} is below its least value, 1")


class Translator:
    """One model, or an ensemble of several with one vocabulary."""

    def __init__(
        self,
        models: Sequence[EncoderDecoder],
        tokenizer: Tokenizer,
        options: SearchOptions,
        *,
        reverse_source: bool = False,
        source_tokenizer: Tokenizer | None = None,
    ) -> None:
        """``source_tokenizer``: of a source with a vocabulary of its own."""
        self._tokenizer, self._options, self._reverse = tokenizer, options, reverse_source
        self._source_tokenizer = source_tokenizer or tokenizer
        steppers = [prepare_decoder(model) for model in models]
        self._stepper: AnyStepper = steppers[0] if len(steppers) == 1 else Ensemble(steppers)
        self._device = models[0].source_embedding.weight.device

    def __call__(self, lines: Sequence[str]) -> list[list[Translated]]:
        """The hypotheses for each line, best first; none for a line without a word."""
        sources = [self._encode(line) for line in lines]
        lengths = np.array([len(source) for source in sources], np.int64)
        found: list[list[Translated]] = [[] for _ in lines]
        for group in group_by_length(lengths, lengths, self._options.batch_size, None):
            if lengths[group[0]]:
                batch = [sources[number] for number in group]
                for number, hypotheses in zip(group, self._search(batch), strict=True):
                    found[number] = hypotheses
        return found

    def best(self, lines: Sequence[str]) -> list[str]:
        """The best translation of each line; empty for a line without one."""
        return [found[0].text if found else "" for found in self(lines)]

    def _encode(self, line: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        ids = self._source_tokenizer.encode(line) if line.strip() else []
        return np.array(ids[::-1] if self._reverse else ids, np.int64)

    def _search(
        self, batch: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]
    ) -> list[list[Translated]]:
        """Sources of one length -> the hypotheses of each."""
        boundary, options = self._tokenizer.boundary_id, self._options
        longest = int(options.max_ratio * len(batch[0])) + options.max_extra
        source_end = self._source_tokenizer.boundary_id
        source = torch.from_numpy(source_batch(batch, source_end)).to(self._device)
        beam = BeamOptions(
            options.beam_size,
            max_new_tokens=min(longest, options.max_new_tokens),
            end_id=boundary,
            length_penalty=options.length_penalty,
        )
        with torch.inference_mode():
            state = self._stepper.start(source, len(batch))
            first = torch.full((len(batch),), boundary, device=self._device)
            results = beam_search(self._stepper, first, state, beam)
        return [
            [
                Translated(
                    self._tokenizer.decode(h.tokens), h.logprob, h.score, h.finished, h.tokens
                )
                for h in hypotheses
            ]
            for hypotheses in results
        ]
