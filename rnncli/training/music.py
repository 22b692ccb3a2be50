"""Polyphonic music as the training loop sees it: pieces, their losses, validation.

Every piece begins afresh. Pieces of like length are run side by side, whole (full BPTT) or in parts
of ``training.bptt`` frames, with the state handed on within the piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnncli.config import Config
from rnncli.decoding.frames import FrameLimits, sample_frames
from rnncli.errors import DataError, UsageError
from rnncli.evaluation.music import measure
from rnncli.models.music import MusicModel
from rnncli.nn.consistency import require_unlike_passes
from rnncli.nn.stack import Run, require_way_past
from rnncli.nn.state import State, state_from_tensors, state_to_tensors
from rnncli.runtime import Runtime
from rnncli.text.batching import weighted_items
from rnncli.text.corpus import Progress
from rnncli.text.music import (
    KEYS,
    Frames,
    Music,
    batches,
    format_piece,
    hold_out,
    read_music,
    side_by_side,
    transposed,
)
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.events import Quantity
from rnncli.training.task import Loss, Task, Validation
from rnncli.training.truncation import cuts, require_pieces

NATS_A_FRAME = Quantity("nats", "frame", perplexity=False)
SAMPLE_FRAMES = 16


@dataclass(frozen=True)
class _Part:
    """Frames ``start`` to ``stop`` of the pieces in batch ``batch``."""

    batch: int
    start: int
    stop: int


def open_task(
    config: Config,
    tokenizers: Sequence[Tokenizer],
    runtime: Runtime,
    progress: Progress | None,
) -> Task:
    """The task on the music that ``config`` names; music has no tokenizer."""
    if config.training.state != "reset":
        raise UsageError(
            f"training.state: {config.training.state!r} is for running text, and a piece of music "
            "begins afresh; use 'reset' (training.bptt cuts pieces, 0 runs them whole)"
        )
    require_pieces(config.training)
    require_unlike_passes(config.regularization, config.model)
    if config.training.sampled_softmax:
        raise UsageError("training.sampled_softmax: music has no vocabulary to sample from; use 0")
    if not config.data.train:
        raise UsageError("data.train: no music; give at least one file, or - for standard input")
    train = [read_music(path) for path in config.data.train]
    valid: Music | None = None
    notes: tuple[str, ...] = ()
    if config.data.valid is not None:
        valid = read_music(config.data.valid)
    elif config.data.valid_fraction:
        train, valid, note = hold_out(train, config.data.valid_fraction)
        notes = (note,)
    torch.manual_seed(config.seed)
    return MusicTask(config, train, valid, runtime, notes)


class MusicTask:
    """``Task`` for polyphonic music; a loss is in nats a frame."""

    def __init__(
        self,
        config: Config,
        train: Sequence[Music],
        valid: Music | None,
        runtime: Runtime,
        notes: tuple[str, ...],
    ) -> None:
        self.config, self.runtime, self.notes = config, runtime, notes
        self.tokenizer: Tokenizer | None = None
        self.source_tokenizer: Tokenizer | None = None
        self.quantity = NATS_A_FRAME
        self.train_sha256 = [music.fingerprint for music in train]
        self.valid_sha256 = valid.fingerprint if valid is not None else ""
        self.provenance: dict[str, float] = {}
        self.train_tokens = sum(music.frames for music in train)
        self.valid_tokens = valid.frames if valid is not None else 0
        self.outputs = KEYS
        self._train = [[piece for piece in music.pieces if len(piece)] for music in train]
        self._valid = valid
        self._model = MusicModel(config.model, KEYS)
        require_way_past([self._model.stack])
        self._model.stack.require_engine(config.training.first_engine)
        self._model.start_from(piece for pieces in self._train for piece in pieces)
        self._model.to(runtime.device)
        self.run_as = Run(config.training.first_engine, runtime.dtype)
        length = f"{config.training.bptt} frames" if config.training.bptt else "whole"
        self.batch_text = f"{config.training.batch_size} pieces, {length}"
        self.pieces = 0
        self._layout: list[_Part] = []
        self._epoch: list[Frames] = []
        self._batches: list[npt.NDArray[np.int64]] = []
        self._open: tuple[int, Tensor, Tensor] | None = None
        self._state: State | None = None
        self._next: State | None = None

    @property
    def model(self) -> MusicModel:
        return self._model

    @property
    def positions(self) -> int:
        copies = self.config.regularization.copies
        return math.ceil(copies * self.train_tokens / max(1, self.pieces))

    # -- parts -------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        training = self.config.training
        rng = np.random.default_rng([self.config.seed, epoch])
        chosen = weighted_items(self._train, self.config.data.weights, rng)
        if not chosen:
            raise DataError("data.weights leave nothing to train on; raise them")
        if reach := self.config.data.transpose:
            moves = rng.integers(-reach, reach + 1, len(chosen)).tolist()
            chosen = [transposed(p, move) for p, move in zip(chosen, moves, strict=True)]
        lengths = np.array([len(piece) for piece in chosen], np.int64)
        self._epoch, self._batches = chosen, batches(lengths, training.batch_size, rng)
        self._layout = []
        for batch, numbers in enumerate(self._batches):
            places = cuts(int(lengths[numbers].max()), training, rng)
            self._layout += [_Part(batch, a, b) for a, b in pairwise(places)]
        self.pieces = len(self._layout)
        self._open = self._state = None

    def loss(self, piece: int, sampled: bool) -> Loss:
        part = self._layout[piece]
        frames, there = self._frames(part.batch)
        mask = there[part.start : part.stop]
        state = self._state
        if state is None or part.start == 0:
            state = self.model.start(None, frames.shape[1] * self.config.regularization.copies)
        self.model.train()
        nats, penalty, after = self.model.training_loss(
            frames[part.start : part.stop], frames[part.start + 1 : part.stop + 1], state, mask,
            self.run_as, self.config.regularization,
        )  # fmt: skip
        self._next = after.detach()
        scale = 1.0
        if self.config.training.bptt_variable:
            scale = len(mask) / self.config.training.bptt
        return Loss(nats + penalty, float(nats.detach()), int(mask.sum()), scale)

    def _frames(self, batch: int) -> tuple[Tensor, Tensor]:
        """Frames (T + 1, B, K) and mask (T, B) of a whole batch, as ``side_by_side`` gives them."""
        if self._open is None or self._open[0] != batch:
            frames, mask = side_by_side([self._epoch[number] for number in self._batches[batch]])
            device = self.runtime.device
            self._open = (
                batch, torch.from_numpy(frames).to(device, torch.float32),
                torch.from_numpy(mask).to(device),
            )  # fmt: skip
        return self._open[1:]

    def accept(self, *, carry: bool) -> None:
        self._state, self._next = (self._next if carry else None), None

    def describe(self, piece: int) -> str:
        part = self._layout[piece]
        count = len(self._batches[part.batch])
        return f"batch {part.batch}, frames {part.start} to {part.stop} of {count} pieces"

    # -- validation --------------------------------------------------------------------------

    def validate(self) -> Validation | None:
        if self._valid is None:
            return None
        scores = measure(self.model, self._valid.pieces, self.run_as)
        return Validation(scores.nats, scores.frames)

    def sample(self) -> str:
        self.model.eval()
        opening = torch.empty(0, KEYS, device=self.runtime.device)
        limits = FrameLimits(SAMPLE_FRAMES)
        try:
            (piece,) = sample_frames(
                self.model, opening, rows=1, limits=limits, seed=self.config.seed
            )
        except DataError:  # no probabilities: the run is diverging, and the loop will say so
            return ""
        return format_piece(piece.frames.numpy())

    # -- what a run needs to go on -----------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return state_to_tensors(self._state)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self._state = state_from_tensors(tensors, self.model.start(None, 1))
