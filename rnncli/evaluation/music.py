"""What pieces of music cost under a model: -log p of every frame, each predicted exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncli.decoding.music_ensemble import MusicEnsemble
from rnncli.errors import UsageError
from rnncli.evaluation.cache import CacheConfig, with_cache
from rnncli.evaluation.pieces import PIECE, group_lines
from rnncli.metrics import MusicScores
from rnncli.models.music import MusicModel
from rnncli.nn.keys import NadeOutput, frame_nats
from rnncli.nn.stack import Run
from rnncli.text.music import Frames, side_by_side


@dataclass(frozen=True)
class Predicted:
    """Frames of several pieces under a model. ``numbers``: which pieces stand in the columns;
    nats: (T, B); logits, targets: (T, B, K); mask: (T, B), false where a piece has ended;
    ``fresh``: the pieces begin here, else they go on; h: (T, B, H), None of an ensemble."""

    numbers: list[int]
    nats: Tensor
    logits: Tensor
    targets: Tensor
    mask: Tensor
    fresh: bool
    h: Tensor | None


def predict(
    model: MusicModel | MusicEnsemble,
    pieces: Sequence[Frames],
    run_as: Run,
    *,
    pieces_at_once: int = 32,
    steps_at_once: int = PIECE,
) -> Iterator[Predicted]:
    """Run the model over every frame of ``pieces``, each (T, K) and begun afresh; those of like
    length together, which changes nothing but the time it takes."""
    network: Any = model  # each with a state of its own kind
    one = model if isinstance(model, MusicModel) else None
    device = model.output.b.device
    numbered = [number for number, piece in enumerate(pieces) if len(piece)]
    lengths = np.array([len(pieces[number]) for number in numbered], np.int64)
    for group in group_lines(lengths, pieces_at_once):
        numbers = [numbered[place] for place in group]
        both, there = side_by_side([pieces[number] for number in numbers])
        frames = torch.from_numpy(both).to(device, model.output.b.dtype)
        mask = torch.from_numpy(there).to(device)
        state = network.start(None, len(numbers))
        for start in range(0, len(mask), steps_at_once):
            part = slice(start, min(start + steps_at_once, len(mask)))
            targets = frames[1:][part]
            h: Tensor | None = None
            if one is not None:
                h, state = one.hidden(frames[:-1][part], state, run_as)
                logits = one.logits_of(h, targets, run_as)
            else:
                logits, state = network.logits(frames[:-1][part], targets, state, run_as)
            nats = frame_nats(logits, targets).masked_fill(~mask[part], 0.0)
            yield Predicted(numbers, nats, logits, targets, mask[part], start == 0, h)


def add_cache(run: Iterable[Predicted], config: CacheConfig) -> Iterator[Predicted]:
    """The same with the continuous cache of ``rnncli.evaluation.cache`` mixed in, the frames of a
    piece being its words: p(frame) = (1 - lambda) p_model(frame) + lambda p_cache(frame). Each
    piece begins with an empty one. Raises UsageError for an ensemble, which has no h of its own."""
    for part in run:
        if part.h is None:
            raise UsageError("--cache-window: a cache needs one model; leave out --model")
        if part.fresh:
            keys, frames = part.h[:0], part.targets[:0]
        before, frames = len(frames), torch.cat([frames, part.targets])
        _, words = torch.unique(frames.flatten(0, 1), dim=0, return_inverse=True)
        words = words.view(frames.shape[:2])
        nats = with_cache(part.nats, part.h, words[before:], keys, words[:before], config)
        yield replace(part, nats=nats.masked_fill_(~part.mask, 0.0))
        keys = torch.cat([keys, part.h])[-config.window :]
        frames = frames[-config.window :]


class _Totals:
    """Sums over parts, in float64."""

    def __init__(self, pieces: int, device: torch.device) -> None:
        self.of_piece = torch.zeros(pieces, dtype=torch.float64, device=device)
        self.first = torch.zeros((), dtype=torch.float64, device=device)
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)

    def add(self, part: Predicted) -> None:
        numbers = torch.tensor(part.numbers, device=self.of_piece.device)
        self.of_piece.index_add_(0, numbers, part.nats.sum(0, dtype=torch.float64))
        if part.fresh:
            self.first += part.nats[0].sum(dtype=torch.float64)

    def count(self, part: Predicted) -> None:
        """Keys that are right, or not, at the chances that the logits tell."""
        self.counts += _count(part.logits[part.mask] > 0, part.targets[part.mask] > 0)

    def scores(self, lengths: Sequence[int], notes: tuple[str, ...]) -> MusicScores:
        nats = self.of_piece.tolist()
        hits, false_alarms, misses = self.counts.tolist()
        return MusicScores(
            nats=sum(nats),
            first_nats=float(self.first),
            mean_nats=sum(n / length for n, length in zip(nats, lengths, strict=True) if length),
            frames=sum(lengths),
            pieces=sum(length > 0 for length in lengths),
            hits=hits,
            false_alarms=false_alarms,
            misses=misses,
            notes=notes,
        )


def measure(
    model: MusicModel | MusicEnsemble, pieces: Sequence[Frames], run_as: Run
) -> MusicScores:
    """The loss of ``pieces``, each (T, K), summed in float64. Raises DataError when there is no
    frame."""
    return measure_both(model, pieces, run_as, None)[0]


def measure_both(
    model: MusicModel | MusicEnsemble,
    pieces: Sequence[Frames],
    run_as: Run,
    cache: CacheConfig | None,
) -> tuple[MusicScores, MusicScores | None]:
    """``measure``, and from the same pass the loss with a cache, of which no keys are counted.
    Raises as ``measure`` and ``add_cache``."""
    device = model.output.b.device
    static, cached = _Totals(len(pieces), device), _Totals(len(pieces), device)

    def watch(run: Iterable[Predicted]) -> Iterator[Predicted]:
        for part in run:
            static.add(part)
            static.count(part)
            yield part

    was_training = model.training
    model.eval()
    with torch.inference_mode():
        run = watch(predict(model, pieces, run_as))
        for part in add_cache(run, cache) if cache else run:
            cached.add(part)
    model.train(was_training)
    lengths = [len(piece) for piece in pieces]
    dtype = str(run_as.dtype).removeprefix("torch.")
    notes = ("output:nade",) if isinstance(model.output, NadeOutput) else ()
    if isinstance(model, MusicEnsemble):
        notes = (*notes, f"models:{len(model.models)}")
    if dtype != "float32":
        notes = (*notes, f"products:{dtype}")
    apart = cached.scores(lengths, (*notes, cache.note)) if cache else None
    return static.scores(lengths, notes), apart


def _count(said: Tensor, sounds: Tensor) -> Tensor:
    """Keys that are right, that sound in ``said`` alone, and in ``sounds`` alone: (3,)."""
    return torch.stack([(said & sounds).sum(), (said & ~sounds).sum(), (~said & sounds).sum()])
