"""Translation as the training loop sees it: batches of pairs, their losses, validation.

The sources of a batch have one length, so that none is padded; targets are of like length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnncli.config import Config
from rnncli.decoding.search_options import SearchOptions
from rnncli.errors import DataError, UsageError
from rnncli.evaluation.translation import bleu_and_chrf, exact_match, token_error_rate
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.pair_loss import pair_loss
from rnncli.nn.consistency import require_unlike_passes
from rnncli.nn.softmax import SampledVocabulary
from rnncli.nn.stack import Run, require_way_past
from rnncli.runtime import Runtime
from rnncli.sections import DataConfig
from rnncli.text.batching import weighted_items
from rnncli.text.corpus import Progress
from rnncli.text.pairs import (
    EncodedPairs,
    Line,
    Pair,
    PairFiles,
    encode_pairs,
    group_by_length,
    pair_files,
    read_pairs,
    source_batch,
    target_batch,
)
from rnncli.text.subword import SubwordTokenizer
from rnncli.text.tokenizers import Tokenizer, train_tokenizer
from rnncli.training.events import NATS_A_TOKEN
from rnncli.training.risk import risk_loss
from rnncli.training.task import Loss, Task, Validation
from rnncli.translation import Translator

SAMPLES = 3
"""Translations shown at a validation."""


def open_task(
    config: Config,
    tokenizers: Sequence[Tokenizer],
    runtime: Runtime,
    progress: Progress | None,
) -> Task:
    """The task on the parallel text that ``config`` names; ``tokenizers``: those of the run to go
    on with, as ``make_tokenizers`` gives them."""
    if config.training.state != "reset":
        raise UsageError(
            f"training.state: {config.training.state!r} is for running text, and every pair begins "
            "afresh; use 'reset'"
        )
    training = config.training
    require_unlike_passes(config.regularization, config.model)
    if training.bptt or training.bptt_variable:
        raise UsageError(
            f"training.bptt: {training.bptt} cuts text in pieces, and pairs are run whole; use "
            "bptt = 0 and bptt_variable = false"
        )
    if training.risk_candidates and training.accumulate > 1:
        raise UsageError(
            "training.accumulate: the risk is a mean over sources, and several pieces are weighed "
            "by their tokens; use accumulate = 1, and a larger batch_size"
        )
    train, valid, notes = read_text(config.data)
    tokenizers = tokenizers or make_tokenizers(config, train)
    torch.manual_seed(config.seed)
    return Translation(config, train, valid, tokenizers, runtime, notes)


def read_text(data: DataConfig) -> tuple[list[list[Pair]], list[Pair] | None, list[str]]:
    """Training pairs, file by file, what is validated on, and sentences about what was held out or
    replaced. Raises as ``read_pairs``; DataError where there are none."""
    if data.strip_lines:
        raise UsageError("data.strip_lines: pairs are taken as they are; use false")
    notes: list[str] = []
    train = [
        list(read_pairs(files, notes)) for files in pair_files(data.train, data.source, data.target)
    ]
    valid: list[Pair] | None = None
    if data.valid is not None or data.valid_source is not None:
        files = PairFiles(data.valid, data.valid_source, data.valid_target)
        valid = list(read_pairs(files, notes))
        if not valid:
            raise DataError(f"{files.name}: empty; give some pairs to validate on")
    elif data.valid_fraction:
        count = sum(map(len, train))
        if count < 2:
            notes.append("Too few pairs to hold some out: nothing is validated (data.valid).")
        else:
            train, valid = _without_last(train, data.valid_fraction)
            of_each = "" if len(train) == 1 else " of each file"
            notes.append(
                f"The last pairs{of_each}, {len(valid):,} of {count:,}, are held out for "
                f"validation (data.valid_fraction = {data.valid_fraction:g}; data.valid names a "
                "file of its own)."
            )
    if not any(train):
        raise DataError("no pairs to train on; give a file with some")
    return train, valid, notes


def _without_last(train: list[list[Pair]], fraction: float) -> tuple[list[list[Pair]], list[Pair]]:
    """Each file's pairs but for the last ``fraction`` of them, and those: one at least, and never
    all of a file."""
    held = [max(0, min(len(pairs) - 1, round(len(pairs) * fraction))) for pairs in train]
    if not any(held):
        longest = max(range(len(train)), key=lambda k: len(train[k]))
        held[longest] = 1
    stay = [pairs[: len(pairs) - count] for pairs, count in zip(train, held, strict=True)]
    return stay, [
        pair for pairs, first in zip(train, stay, strict=True) for pair in pairs[len(first) :]
    ]


def make_tokenizers(config: Config, train: Sequence[Sequence[Pair]]) -> tuple[Tokenizer, ...]:
    """Of the training pairs alone: one vocabulary for both sides; or that of the targets, and that
    of the sources."""
    every = [pair for pairs in train for pair in pairs]
    if config.source_tokenizer is None:
        return (train_tokenizer(config.tokenizer, (text for pair in every for text in pair)),)
    return (
        train_tokenizer(config.tokenizer, (target for _, target in every)),
        train_tokenizer(config.source_tokenizer, (source for source, _ in every)),
    )


def _lengths(train: Sequence[EncodedPairs]) -> dict[str, float]:
    """What a model's file keeps of the lengths of training pairs, in tokens, targets with their
    ends. The ratio is that of all pairs but one in a thousand."""
    both = [pair for pairs in train for pair in zip(pairs.sources, pairs.targets, strict=True)]
    ratios = [(1 + len(target)) / max(1, len(source)) for source, target in both]
    return {
        "longest_source": max(len(source) for source, _ in both),
        "longest_target": 1 + max(len(target) for _, target in both),
        "target_ratio": round(float(np.quantile(ratios, 0.999)), 3),
    }


class Translation:
    """``Task`` for an encoder-decoder; a loss is in nats a target token, line ends counted."""

    def __init__(
        self,
        config: Config,
        train: list[list[Pair]],
        valid: list[Pair] | None,
        tokenizers: Sequence[Tokenizer],
        runtime: Runtime,
        notes: list[str],
    ) -> None:
        """``tokenizers``: as ``make_tokenizers`` gives them."""
        self.config, self.runtime = config, runtime
        tokenizer, *own = tokenizers
        self._tokenizer = tokenizer
        self.source_tokenizer: Tokenizer | None = own[0] if own else None
        self._of_source = self.source_tokenizer or tokenizer
        self.quantity = NATS_A_TOKEN
        reverse = config.model.reverse_source
        self._train = [
            encode_pairs(
                p, self._of_source, tokenizer, max_length=config.data.max_length, reverse=reverse
            )
            for p in train
        ]
        self._sampled: list[list[Pair]] = []
        if config.regularization.subword_dropout:
            for one in (tokenizer, self._of_source):
                if one.kind != "bpe":
                    raise UsageError(
                        f"regularization.subword_dropout: merges are left out of bpe, not of "
                        f"{one.kind}; use tokenizer.kind = 'bpe' or subword_dropout = 0"
                    )
            self._sampled = [
                [p[number] for number in encoded.kept]
                for p, encoded in zip(train, self._train, strict=True)
            ]
        self._valid_text = valid or []
        self._valid: EncodedPairs | None = None
        if valid is not None:
            self._valid = encode_pairs(valid, self._of_source, tokenizer, reverse=reverse)
        if not any(map(len, self._train)):
            raise DataError(
                f"data.max_length: every training pair has more than {config.data.max_length} "
                "tokens on a side; raise it"
            )
        dropped = sum(pairs.dropped for pairs in self._train)
        if dropped:
            notes.append(
                f"{dropped:,} training pairs have more than {config.data.max_length} tokens on a "
                "side and are left out (data.max_length)."
            )
        self.notes = tuple(notes)
        self.train_sha256 = [pairs.fingerprint for pairs in self._train]
        self.valid_sha256 = self._valid.fingerprint if self._valid else ""
        self.provenance = _lengths(self._train)
        self.train_tokens = sum(pairs.target_tokens for pairs in self._train)
        self.valid_tokens = self._valid.target_tokens if self._valid else 0
        self._model = EncoderDecoder(
            config.model, tokenizer.vocab_size, own[0].vocab_size if own else None
        )
        parts = (self._model.encoder, self._model.decoder, self._model.upper)
        stacks = [stack for stack in parts if stack is not None]
        require_way_past(stacks)
        for stack in stacks:
            stack.require_engine(config.training.first_engine)
        counts = self._token_counts()
        self._model.output.start_from(counts)
        self._model.to(runtime.device)
        self.run_as = Run(config.training.first_engine, runtime.dtype)
        self.sampling: SampledVocabulary | None = None
        if config.training.sampled_softmax:
            size = config.training.sampled_softmax
            self.sampling = SampledVocabulary(counts, size, runtime.device)
        self.batch_text = (
            f"{config.training.batch_tokens} tokens"
            if config.training.batch_tokens
            else f"{config.training.batch_size} pairs"
        )
        self.outputs = tokenizer.vocab_size
        self.pieces = 0
        self._epoch_number = 0
        self._epoch: list[tuple[Line, Line]] = []
        self._batches: list[npt.NDArray[np.int64]] = []

    @property
    def model(self) -> EncoderDecoder:
        return self._model

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def positions(self) -> int:
        copies = self.config.regularization.copies
        return math.ceil(copies * self.train_tokens / max(1, self.pieces))

    def _token_counts(self) -> Tensor:
        """(V,): how often each token occurs in the training targets."""
        size = self._tokenizer.vocab_size
        counts = np.zeros(size, np.int64)
        for pairs in self._train:
            if pairs.targets:
                counts += np.bincount(np.concatenate(pairs.targets), minlength=size)
            counts[self._tokenizer.boundary_id] += len(pairs)
        return torch.from_numpy(counts)

    # -- batches -----------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        self._epoch_number = epoch
        rng = np.random.default_rng([self.config.seed, epoch])
        if self._sampled:
            both = [self._sample(pairs, int(rng.integers(1 << 32))) for pairs in self._sampled]
        else:
            both = [list(zip(p.sources, p.targets, strict=True)) for p in self._train]
        self._epoch = weighted_items(both, self.config.data.weights, rng)
        if not self._epoch:
            raise DataError("data.weights leave nothing to train on; raise them")
        lengths = np.array([len(source) for source, _ in self._epoch], np.int64)
        seconds = np.array([len(target) + 1 for _, target in self._epoch], np.int64)
        training = self.config.training
        self._batches = group_by_length(
            lengths, seconds, training.batch_size, rng, training.batch_tokens
        )
        self.pieces = len(self._batches)

    def _sample(self, pairs: Sequence[Pair], seed: int) -> list[tuple[Line, Line]]:
        """The pairs in subwords drawn by chance."""
        rate, reverse = self.config.regularization.subword_dropout, self.config.model.reverse_source
        sides: list[list[Line]] = []
        for tokenizer, column in ((self._of_source, 0), (self._tokenizer, 1)):
            assert isinstance(tokenizer, SubwordTokenizer)
            lines = tokenizer.encode_sampled([p[column] for p in pairs], rate, seed + column)
            sides.append([np.array(line, np.int64) for line in lines])
        if reverse:
            sides[0] = [line[::-1].copy() for line in sides[0]]
        return list(zip(*sides, strict=True))

    def loss(self, piece: int, sampled: bool) -> Loss:
        pairs = [self._epoch[number] for number in self._batches[piece]]
        source, inputs, targets, mask = self._tensors(pairs)
        if self.config.training.risk_candidates:
            longest = self._fitted(SearchOptions()).longest(len(source) - 1, 0)
            of_piece = np.random.default_rng([self.config.seed, self._epoch_number, piece])
            return risk_loss(
                self.model, self._tokenizer, source, [target for _, target in pairs],
                longest, self.config.training, self.config.regularization, self.run_as,
                int(of_piece.integers(1 << 62)),
            )  # fmt: skip
        self.model.train()
        nats, extra = pair_loss(
            self.model, source, inputs, targets, mask, self.run_as, self.config.regularization,
            self.sampling if sampled else None,
        )  # fmt: skip
        return Loss(nats + extra, float(nats.detach()), int(mask.sum()), 1.0)

    def _tensors(self, pairs: list[tuple[Line, Line]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        boundary = self._tokenizer.boundary_id
        source = source_batch([left for left, _ in pairs], self._of_source.boundary_id)
        arrays = (source, *target_batch([right for _, right in pairs], boundary))
        tensors = [torch.from_numpy(array).to(self.runtime.device) for array in arrays]
        return tensors[0], tensors[1], tensors[2], tensors[3]

    def accept(self, *, carry: bool) -> None:
        """Nothing is handed on from one batch to the next."""

    def describe(self, piece: int) -> str:
        return f"batch {piece} of {len(self._batches[piece])} pairs"

    # -- validation --------------------------------------------------------------------------

    def validate(self) -> Validation | None:
        if self._valid is None:
            return None
        self.model.eval()
        nats, pairs = 0.0, list(zip(self._valid.sources, self._valid.targets, strict=True))
        lengths = np.array([len(source) for source, _ in pairs], np.int64)
        seconds = np.array([len(target) for _, target in pairs], np.int64)
        with torch.inference_mode():
            for group in group_by_length(lengths, seconds, 64, None):
                source, inputs, targets, mask = self._tensors([pairs[k] for k in group])
                each = self.model.nats(source, inputs, targets, self.run_as)
                nats += float(each[mask].sum(dtype=torch.float64))
        translations = self._translate(self._sources())
        references = [target for _, target in self._valid_text]
        bleu, chrf = bleu_and_chrf(translations, references)
        scores = {
            "bleu": bleu.value,
            "chrf": chrf.value,
            "exact_match": exact_match(translations, references),
            "token_error_rate": token_error_rate(translations, references),
        }
        return Validation(nats, self._valid.target_tokens, scores)

    def _fitted(self, options: SearchOptions) -> SearchOptions:
        return options.fitted(
            float(self.provenance["target_ratio"]), int(self.provenance["longest_target"])
        )

    def _sources(self) -> list[str]:
        return [source for source, _ in self._valid_text]

    def _translate(self, sources: Sequence[str]) -> list[str]:
        translator = Translator(
            [self.model], self._tokenizer, self._fitted(SearchOptions(beam_size=1, batch_size=64)),
            reverse_source=self.config.model.reverse_source,
            source_tokenizer=self.source_tokenizer, workers=self.runtime.threads,
        )  # fmt: skip
        try:
            return translator.best(sources)
        except DataError:  # no probabilities: the run is diverging, and the loop will say so
            return [""] * len(sources)

    def sample(self) -> str:
        self.model.eval()
        sources = self._sources()[:SAMPLES]
        found = self._translate(sources)
        return "\n".join(f"{a} -> {b}" for a, b in zip(sources, found, strict=True))

    # -- what a run needs to go on -----------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Nothing was kept: batches follow from the seed and the epoch."""
