"""What a text costs under a language model: -log p of every token, each predicted exactly once.

Two ways to carry the state: over the whole text as one stream (``stream_nats``, the published way
for Penn Treebank and its like), or reset at every line (``reset_nats``, ``line_nats``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnncli.models.language_model import LanguageModel
from rnncli.nn.stack import Run
from rnncli.text.batching import LineBatches

Array = npt.NDArray[Any]
Piece = tuple[Array, Array, Array | None]
"""Inputs (T, B), targets (T, B), and a mask (T, B) that is false for padding; None: no padding."""

PIECE = 256
"""Time steps run at once; longer texts and lines hand the state on."""

LINES_AT_ONCE = 32


@dataclass(frozen=True)
class StreamNats:
    """-log p of a text, summed in float64: of all its ``tokens``, and of the unknown ones among
    them. ``columns``: how many parallel streams the text was cut into; 0: reset at every line."""

    nats: float
    oov_nats: float
    tokens: int
    columns: int


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
    slightly worse by the context lost at the cuts.
    """
    columns = max(1, min(columns, len(ids)))
    totals = _Totals(model, unk_id)
    with evaluating(model):
        pieces = column_pieces(ids, boundary_id, columns, piece)
        for nats, targets in piece_nats(model, pieces, columns, run_as):
            totals.add(nats, targets)
    return StreamNats(*totals.read(), tokens=len(ids), columns=columns)


def reset_nats(
    model: LanguageModel,
    ids: Array,
    boundary_id: int,
    *,
    lines_at_once: int = LINES_AT_ONCE,
    piece: int = PIECE,
    run_as: Run,
    unk_id: int | None = None,
) -> StreamNats:
    """A text whose state is reset at every line: each begins anew after ``boundary_id``.

    ids: (N,), lines that end in ``boundary_id``. The end of each line is predicted, too.
    """
    totals = _Totals(model, unk_id)
    epoch = LineBatches([ids], lines_at_once, boundary_id).epoch()
    with evaluating(model):
        for number in range(len(epoch)):
            inputs, targets, mask = epoch.batch(number)
            pieces = cut(inputs, targets, mask, piece)
            for nats, wanted in piece_nats(model, pieces, inputs.shape[1], run_as):
                totals.add(nats, wanted)
    return StreamNats(*totals.read(), tokens=len(ids), columns=0)


def line_nats(
    model: LanguageModel,
    lines: Sequence[Sequence[int]],
    boundary_id: int,
    *,
    lines_at_once: int = LINES_AT_ONCE,
    piece: int = PIECE,
    run_as: Run,
) -> list[npt.NDArray[np.float64]]:
    """-log p of every token of every line, each line by itself.

    ``lines``: token ids without the line's end, which is added and counted: the result for a line
    of n tokens is (n + 1,). Lines of like length are run together.
    """
    results: list[npt.NDArray[np.float64]] = [np.empty(0)] * len(lines)
    by_length = sorted(range(len(lines)), key=lambda number: len(lines[number]))
    with evaluating(model):
        for start in range(0, len(lines), lines_at_once):
            numbers = by_length[start : start + lines_at_once]
            longest = len(lines[numbers[-1]]) + 1
            both = np.full((longest + 1, len(numbers)), boundary_id, np.int64)
            for column, number in enumerate(numbers):
                both[1 : len(lines[number]) + 1, column] = lines[number]
            lengths = np.array([len(lines[number]) + 1 for number in numbers])
            mask = np.arange(longest)[:, None] < lengths
            pieces = cut(both[:-1], both[1:], mask, piece)
            parts = [nats for nats, _ in piece_nats(model, pieces, len(numbers), run_as)]
            nats = torch.cat(parts).double().cpu().numpy()
            for column, number in enumerate(numbers):
                results[number] = nats[: lengths[column], column].copy()
    return results


# -- pieces of text, in order ----------------------------------------------------------------


def column_pieces(ids: Array, boundary_id: int, columns: int, piece: int) -> Iterator[Piece]:
    """The pieces of a text (N,) cut into ``columns`` contiguous parts, 1 to N of them."""
    length, longer = divmod(len(ids), columns)
    starts = np.arange(columns) * length + np.minimum(np.arange(columns), longer)
    for begin in range(0, length, piece):
        end = min(begin + piece, length)
        both = np.empty((end - begin + 1, columns), np.int64)
        for column, start in enumerate(starts.tolist()):
            first = start + begin - 1
            if first < 0:
                both[0, column] = boundary_id
                both[1:, column] = ids[:end]
            else:
                both[:, column] = ids[first : start + end]
        yield both[:-1], both[1:], None
    if longer:
        lasts = starts[:longer] + length
        both = np.full((2, columns), boundary_id, np.int64)
        both[0, :longer], both[1, :longer] = ids[lasts - 1], ids[lasts]
        yield both[:1], both[1:], np.arange(columns)[None, :] < longer


def cut(inputs: Array, targets: Array, mask: Array, piece: int) -> Iterator[Piece]:
    """Whole sequences, each array (T, B), in pieces of ``piece`` steps."""
    for start in range(0, len(inputs), piece):
        part = slice(start, start + piece)
        yield inputs[part], targets[part], mask[part]


# -- running the model over them -------------------------------------------------------------


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Without gradients, in evaluation mode; the mode is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def piece_nats(
    model: LanguageModel, pieces: Iterable[Piece], rows: int, run_as: Run
) -> Iterator[tuple[Tensor, Tensor]]:
    """-log p (T, B) and targets (T, B) of each piece, the state handed from one to the next, from
    the initial one for ``rows`` sequences; -log p is 0 where there is padding."""
    device = model_device(model)
    state = model.start(None, rows)
    for inputs, targets, mask in pieces:
        h, state = model.hidden(torch.from_numpy(inputs).to(device), state, run_as)
        wanted = torch.from_numpy(targets).to(device)
        flat_h, flat = h.reshape(-1, h.shape[-1]), wanted.reshape(-1)
        if mask is None or mask.all():
            nats = model.output.nats(flat_h, flat, model.tied_weight)
        else:
            keep = torch.from_numpy(np.flatnonzero(mask)).to(device)
            kept = model.output.nats(flat_h[keep], flat[keep], model.tied_weight)
            nats = kept.new_zeros(len(flat)).index_copy_(0, keep, kept)
        yield nats.view(wanted.shape), wanted


def model_device(model: LanguageModel) -> torch.device:
    return next(model.parameters()).device


class _Totals:
    """Sums in float64, kept on the model's device until they are read."""

    def __init__(self, model: LanguageModel, unk_id: int | None) -> None:
        self._unk_id = unk_id
        device = model_device(model)
        self._nats = torch.zeros((), dtype=torch.float64, device=device)
        self._oov = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, nats: Tensor, targets: Tensor) -> None:
        self._nats = self._nats + nats.sum(dtype=torch.float64)
        if self._unk_id is not None:
            self._oov = self._oov + nats[targets == self._unk_id].sum(dtype=torch.float64)

    def read(self) -> tuple[float, float]:
        return float(self._nats), float(self._oov)
