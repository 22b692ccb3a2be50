"""The language-modelling task as the training loop sees it: pieces, their losses, validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnncli.config import Config
from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, Piece, sample
from rnncli.errors import DataError
from rnncli.evaluation.language_model import line_nats, stream_nats
from rnncli.models.language_model import LanguageModel
from rnncli.nn.consistency import require_unlike_passes
from rnncli.nn.softmax import SampledVocabulary
from rnncli.nn.stack import Run, require_way_past
from rnncli.nn.state import State, state_from_tensors, state_to_tensors
from rnncli.runtime import Runtime
from rnncli.text.batching import LineBatches, LineEpoch, Stream, weighted_parts
from rnncli.text.corpus import Corpus, Progress, count_tokens, load_corpus
from rnncli.text.tokenizers import Tokenizer, train_tokenizer
from rnncli.training.events import NATS_A_TOKEN
from rnncli.training.task import Loss, Task, Validation
from rnncli.training.truncation import cuts, require_pieces

VALID_COLUMN_TOKENS = 2000
"""Validation runs in as many parallel streams (at most 32) as leave each this long."""

SAMPLE_TOKENS = 60


@dataclass(frozen=True)
class _Piece:
    """Predictions ``start`` to ``stop`` of the stream, or of line batch ``batch``."""

    batch: int
    start: int
    stop: int


def open_task(
    config: Config,
    tokenizers: Sequence[Tokenizer],
    runtime: Runtime,
    progress: Progress | None,
) -> Task:
    """The task on the text that ``config`` names; ``tokenizers``: that of the run to go on with,
    if there is one."""
    require_pieces(config.training)
    require_unlike_passes(config.regularization, config.model)
    chosen: Tokenizer | None = next(iter(tokenizers), None)
    if chosen is None and config.tokenizer.model is not None:
        chosen = train_tokenizer(config.tokenizer, ())
    corpus = load_corpus(config.data, chosen or config.tokenizer, progress=progress)
    torch.manual_seed(config.seed)
    return LanguageModelling(config, corpus, runtime)


class LanguageModelling:
    """``Task`` for a language model. State is carried along the stream, or reset for every line."""

    def __init__(self, config: Config, corpus: Corpus, runtime: Runtime) -> None:
        self.config, self.corpus, self.runtime = config, corpus, runtime
        self.tokenizer: Tokenizer = corpus.tokenizer
        self.source_tokenizer: Tokenizer | None = None
        self.quantity = NATS_A_TOKEN
        self.notes = corpus.notes
        self.train_sha256 = [stream.fingerprint for stream in corpus.train]
        self.valid_sha256 = corpus.valid.fingerprint if corpus.valid is not None else ""
        self.provenance: dict[str, float] = {}
        self.train_tokens = sum(len(stream.ids) for stream in corpus.train)
        self.valid_tokens = len(corpus.valid.ids) if corpus.valid is not None else 0
        self._model = LanguageModel(config.model, self.tokenizer.vocab_size)
        require_way_past([self.model.stack])
        self.model.stack.require_engine(config.training.first_engine)
        counts = torch.from_numpy(count_tokens(corpus))
        self.model.output.start_from(counts)
        self.model.to(runtime.device)
        self.run_as = Run(config.training.first_engine, runtime.dtype)
        self.sampling: SampledVocabulary | None = None
        if config.training.sampled_softmax and self.tokenizer.vocab_size > 2:
            self.sampling = SampledVocabulary(
                counts, config.training.sampled_softmax, runtime.device
            )
        self.batch_size = min(config.training.batch_size, max(1, self.train_tokens // 2))
        unit = "streams" if config.training.state == "carried" else "lines"
        length = f"{config.training.bptt} tokens" if config.training.bptt else "whole lines"
        self.batch_text = f"{self.batch_size} {unit}, {length}"
        self.outputs = self.tokenizer.vocab_size
        self.pieces = 0
        self._layout: list[_Piece] = []
        self._stream: Stream | None = None
        self._lines: LineEpoch | None = None
        self._open: tuple[int, tuple[npt.NDArray[Any], ...]] | None = None  # a batch of lines
        self._state: State | None = None
        self._next: State | None = None

    @property
    def model(self) -> LanguageModel:
        return self._model

    @property
    def positions(self) -> int:
        copies = self.config.regularization.copies
        if self.config.training.state == "carried":
            return copies * self.config.training.bptt * self.batch_size
        return math.ceil(copies * self.train_tokens / max(1, self.pieces))

    # -- pieces ------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        training = self.config.training
        rng = np.random.default_rng([self.config.seed, epoch])
        parts = weighted_parts(self.corpus.train, self.config.data.weights, epoch, rng)
        self._state = self._open = None
        if training.state == "carried":
            self._stream = Stream(parts, self.batch_size, self.tokenizer.boundary_id)
            places = cuts(self._stream.length, training, rng)
            self._layout = [_Piece(0, a, b) for a, b in pairwise(places)]
        else:
            source = LineBatches(parts, self.batch_size, self.tokenizer.boundary_id)
            self._lines = source.epoch(rng)
            self._layout = []
            for batch in range(len(self._lines)):
                length = int(source.lengths[self._lines.lines(batch)].max())
                places = cuts(length, training, rng)
                self._layout += [_Piece(batch, a, b) for a, b in pairwise(places)]
        self.pieces = len(self._layout)
        if not self.pieces:
            raise DataError("data.weights leave nothing to train on; raise them")

    def loss(self, piece: int, sampled: bool) -> Loss:
        inputs, targets, mask = self._batch(self._layout[piece])
        state = self._state
        if state is None:
            state = self.model.start(None, inputs.shape[1] * self.config.regularization.copies)
        self.model.train()
        nats, penalty, after = self.model.training_loss(
            inputs, targets, state, mask, self.run_as, self.config.regularization,
            self.sampling if sampled else None,
        )  # fmt: skip
        self._next = after.detach()
        tokens = targets.numel() if mask is None else int(mask.sum())
        scale = 1.0
        if self.config.training.bptt_variable:
            scale = len(targets) / self.config.training.bptt
        return Loss(nats + penalty, float(nats.detach()), tokens, scale)

    def _batch(self, piece: _Piece) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs, targets and mask, each (T, B), on the device."""
        if self._stream is not None:
            window = self._stream.window(piece.start, piece.stop)
            inputs, targets = (torch.from_numpy(a).to(self.runtime.device) for a in window)
            return inputs, targets, None
        assert self._lines is not None
        if piece.start == 0:
            self._state = None
        cut = slice(piece.start, piece.stop)
        if self._open is None or self._open[0] != piece.batch:
            self._open = (piece.batch, self._lines.batch(piece.batch))
        arrays = tuple(a[cut] for a in self._open[1])
        inputs, targets, mask = (torch.from_numpy(a).to(self.runtime.device) for a in arrays)
        return inputs, targets, mask

    def accept(self, *, carry: bool) -> None:
        self._state, self._next = (self._next if carry else None), None

    def describe(self, piece: int) -> str:
        where = self._layout[piece]
        unit = "tokens" if self._lines is None else f"line batch {where.batch}, tokens"
        return f"{unit} {where.start} to {where.stop} of {self.batch_size} streams"

    # -- validation --------------------------------------------------------------------------

    def validate(self) -> Validation | None:
        if self.corpus.valid is None:
            return None
        ids, boundary = self.corpus.valid.ids, self.tokenizer.boundary_id
        if self.config.training.state == "reset":
            scored = line_nats(self.model, ids, boundary, run_as=self.run_as)
        else:
            columns = max(1, min(32, len(ids) // VALID_COLUMN_TOKENS))
            scored = stream_nats(self.model, ids, boundary, columns=columns, run_as=self.run_as)
        return Validation(scored.nats, scored.tokens)

    def sample(self) -> str:
        self.model.eval()
        first = torch.tensor([self.tokenizer.boundary_id], device=self.runtime.device)
        events = sample(
            self.model, first, self.model.start(None, 1), decoders=[self.tokenizer.decoder()],
            limits=Limits(SAMPLE_TOKENS), filters=Filters(temperature=0.8), seed=self.config.seed,
        )  # fmt: skip
        try:
            return "".join(event.text for event in events if isinstance(event, Piece))
        except DataError:  # no probabilities: the run is diverging, and the loop will say so
            return ""

    # -- what a run needs to go on -----------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return state_to_tensors(self._state)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self._state = state_from_tensors(tensors, self.model.start(None, 1))
