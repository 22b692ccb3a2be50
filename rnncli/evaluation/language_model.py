"""What a text costs under a language model: -log p of every token, each predicted exactly once.

Two ways to carry the state: over the whole text as one stream (``stream_nats``, the published way
for Penn Treebank and its like), or reset at every line (``line_nats``, ``nats_of_lines``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnncli.evaluation.pieces import (
    PIECE,
    Array,
    Piece,
    column_pieces,
    fill_lines,
    group_lines,
    line_pieces,
    whole_pieces,
)
from rnncli.models.language_model import LanguageModel
from rnncli.nn.stack import Run
from rnncli.nn.state import State
from rnncli.sections import RegularizationConfig


@dataclass(frozen=True)
class StreamNats:
    """-log p of a text, summed in float64: of all its ``tokens``, and of the unknown ones among
    them. ``columns``: how many parallel streams the text was cut into; 0: reset at every line."""

    nats: float
    oov_nats: float
    tokens: int
    columns: int


@dataclass(frozen=True)
class Predicted:
    """A piece of text under a model. nats: (T, B), 0 for padding; h: (T, B, H), what the output
    layer read; targets: (T, B); mask: (T, B), false for padding, or None."""

    nats: Tensor
    h: Tensor
    targets: Tensor
    mask: Tensor | None


def stream_nats(
    model: LanguageModel,
    ids: Array,
    boundary_id: int,
    *,
    columns: int = 1,
    piece: int = PIECE,
    run_as: Run,
    unk_id: int | None = None,
) -> StreamNats:
    """A text whose state is carried from its first token to its last.

    ids: (N,), each predicted once, the first from ``boundary_id``. With several ``columns`` the
    text is cut into as many contiguous parts of equal length (the first ones a token longer where
    it does not divide), each started from the initial state and the token before it: faster, and
    a little worse by the context lost at the cuts.
    """
    columns = max(1, min(columns, len(ids)))
    pieces = column_pieces(ids, boundary_id, columns, piece)
    with evaluating(model):
        totals = Totals(unk_id).read(predict(model, pieces, run_as))
    return StreamNats(*totals, tokens=len(ids), columns=columns)


def line_nats(
    model: LanguageModel,
    ids: Array,
    boundary_id: int,
    *,
    piece: int = PIECE,
    run_as: Run,
    unk_id: int | None = None,
) -> StreamNats:
    """A text whose state is reset at every line: each begins anew after ``boundary_id``.

    ids: (N,), lines that end in ``boundary_id``. The end of each line is predicted, too.
    """
    with evaluating(model):
        totals = Totals(unk_id).read(predict(model, line_pieces(ids, boundary_id, piece), run_as))
    return StreamNats(*totals, tokens=len(ids), columns=0)


def nats_of_lines(
    model: LanguageModel,
    lines: Sequence[Sequence[int]],
    boundary_id: int,
    *,
    lines_at_once: int = 32,
    piece: int = PIECE,
    run_as: Run,
) -> list[npt.NDArray[np.float64]]:
    """-log p of every token of every line, each line by itself.

    ``lines``: token ids without the line's end, which is added and counted: the result for a line
    of n tokens is (n + 1,). Lines of like length are run together; in a model of float64 the
    result does not depend on which ones to more than its last digits.
    """
    lengths = np.array([len(line) + 1 for line in lines], np.int64)
    results: list[npt.NDArray[np.float64]] = [np.empty(0)] * len(lines)
    with evaluating(model):
        for numbers in group_lines(lengths, lines_at_once):
            inputs, targets, mask = fill_lines([lines[n] for n in numbers], boundary_id)
            run = predict(model, whole_pieces(inputs, targets, mask, piece), run_as)
            nats = torch.cat([part.nats for part in run]).double().cpu().numpy()
            for column, number in enumerate(numbers):
                results[number] = nats[: lengths[number], column].copy()
    return results


@contextmanager
def evaluating(*models: LanguageModel) -> Iterator[None]:
    """Without gradients, in evaluation mode; the mode is put back afterwards."""
    training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for model, was_training in zip(models, training, strict=True):
            model.train(was_training)


def predict(
    model: LanguageModel,
    pieces: Iterable[Piece],
    run_as: Run,
    dropout: RegularizationConfig | None = None,
) -> Iterator[Predicted]:
    """Run the model over pieces of text, the state handed from each to the next.

    ``dropout``: rates to drop units with, drawn anew for every piece; None: no dropout.
    """
    device = model_device(model)
    state: State | None = None
    for piece in pieces:
        inputs, targets = (torch.from_numpy(a).to(device) for a in (piece.inputs, piece.targets))
        if piece.fresh or state is None:
            state = model.start(None, inputs.shape[1])
        h, state = model.hidden(inputs, state, run_as, dropout)
        rows, flat = h.reshape(-1, h.shape[-1]), targets.reshape(-1)
        if piece.mask is None or piece.mask.all():
            nats = model.output.nats(rows, flat, model.tied_weight)
            yield Predicted(nats.view(targets.shape), h, targets, None)
        else:
            mask = torch.from_numpy(piece.mask).to(device)
            keep = mask.reshape(-1).nonzero().squeeze(1)
            kept = model.output.nats(rows[keep], flat[keep], model.tied_weight)
            nats = kept.new_zeros(len(flat)).index_copy_(0, keep, kept)
            yield Predicted(nats.view(targets.shape), h, targets, mask)


class Totals:
    """Sums over a run in float64, kept on the model's device so that it is never waited for."""

    def __init__(self, unk_id: int | None) -> None:
        self._unk_id = unk_id
        self._nats: Tensor | float = 0.0
        self._oov_nats: Tensor | float = 0.0

    def watch(self, run: Iterable[Predicted]) -> Iterator[Predicted]:
        """The same run, added up on its way."""
        for part in run:
            self._nats = self._nats + part.nats.sum(dtype=torch.float64)
            if self._unk_id is not None:
                unknown = part.targets == self._unk_id
                if part.mask is not None:
                    unknown &= part.mask
                self._oov_nats = self._oov_nats + part.nats[unknown].sum(dtype=torch.float64)
            yield part

    def read(self, run: Iterable[Predicted]) -> tuple[float, float]:
        """The nats of all tokens, and of the unknown ones among them, after the end of ``run``."""
        for _ in self.watch(run):
            pass
        return self.sums

    @property
    def sums(self) -> tuple[float, float]:
        return float(self._nats), float(self._oov_nats)


def model_device(model: LanguageModel) -> torch.device:
    return model.embedding.weight.device
