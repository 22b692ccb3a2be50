"""What pieces of music cost under a model: -log p of every frame, each predicted exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncli.decoding.music_ensemble import MusicEnsemble
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
    ``fresh``: the pieces begin here, else they go on."""

    numbers: list[int]
    nats: Tensor
    logits: Tensor
    targets: Tensor
    mask: Tensor
    fresh: bool


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
            logits, state = network.logits(frames[:-1][part], targets, state, run_as)
            nats = frame_nats(logits, targets).masked_fill(~mask[part], 0.0)
            yield Predicted(numbers, nats, logits, targets, mask[part], fresh=start == 0)


def measure(
    model: MusicModel | MusicEnsemble, pieces: Sequence[Frames], run_as: Run
) -> MusicScores:
    """The loss of ``pieces``, each (T, K), summed in float64. Raises DataError when there is no
    frame."""
    device = model.output.b.device
    nats_of_piece = torch.zeros(len(pieces), dtype=torch.float64, device=device)
    first_nats = torch.zeros((), dtype=torch.float64, device=device)
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for part in predict(model, pieces, run_as):
            numbers = torch.tensor(part.numbers, device=device)
            nats_of_piece.index_add_(0, numbers, part.nats.sum(0, dtype=torch.float64))
            if part.fresh:
                first_nats += part.nats[0].sum(dtype=torch.float64)
            counts += _count(part.logits[part.mask] > 0, part.targets[part.mask] > 0)
    model.train(was_training)
    lengths = [len(piece) for piece in pieces]
    nats = nats_of_piece.tolist()
    hits, false_alarms, misses = counts.tolist()
    dtype = str(run_as.dtype).removeprefix("torch.")
    notes = ("output:nade",) if isinstance(model.output, NadeOutput) else ()
    if isinstance(model, MusicEnsemble):
        notes = (*notes, f"models:{len(model.models)}")
    return MusicScores(
        nats=sum(nats),
        first_nats=float(first_nats),
        mean_nats=sum(n / length for n, length in zip(nats, lengths, strict=True) if length),
        frames=sum(lengths),
        pieces=sum(length > 0 for length in lengths),
        hits=hits,
        false_alarms=false_alarms,
        misses=misses,
        notes=notes if dtype == "float32" else (*notes, f"products:{dtype}"),
    )


def _count(said: Tensor, sounds: Tensor) -> Tensor:
    """Keys that are right, that sound in ``said`` alone, and in ``sounds`` alone: (3,)."""
    return torch.stack([(said & sounds).sum(), (said & ~sounds).sum(), (~said & sounds).sum()])
