"""The recurrent model of polyphonic music: p(frame t | frames 1 ... t-1), a frame being the keys
that sound together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.models.penalties import activation_penalty
from rnncli.nn.consistency import consistent_frames, passes_of
from rnncli.nn.dropout import dropout
from rnncli.nn.keys import Choice, KeyInput, KeyOutput, NadeOutput, draw, frame_nats
from rnncli.nn.softmax import keep_fixed
from rnncli.nn.stack import Run, Stack, require_frozen
from rnncli.nn.state import State
from rnncli.sections import ModelConfig, RegularizationConfig


class MusicModel(nn.Module):
    """Frames (K keys), perhaps a linear embedding, recurrent layers, a sigmoid for each key or,
    with ``output`` nade, for each key given those below it.

    What comes before the first frame of a piece is the initial state and a frame of silence.
    Raises UsageError for a configuration that frames cannot have.
    """

    def __init__(self, config: ModelConfig, keys: int) -> None:
        super().__init__()
        if config.output not in ("softmax", "nade"):
            raise UsageError(
                f"model.output: {config.output!r} is for words; the keys of a frame have a sigmoid "
                "each, so leave it at 'softmax', which music ignores, or use 'nade'"
            )
        self.keys = keys
        self.input = KeyInput(config, keys)
        self.stack = Stack(config, self.input.size)
        if config.tied and self.stack.output_size != self.input.size:
            raise UsageError(
                f"model.tied: the layers give {self.stack.output_size} units, and the embedding to "
                f"be the output's matrix too has {self.input.size}; use embedding_size = "
                f"{self.stack.output_size} or tied = false"
            )
        if config.embedding_is_fixed:
            self.input.requires_grad_(False)
        output = NadeOutput if config.output == "nade" else KeyOutput
        self.output = output(config, self.stack.output_size, keys)
        require_frozen(config, [self.stack])
        keep_fixed(self.output, config)
        self.tied = config.tied

    def start_from(self, pieces: Iterable[npt.NDArray[np.generic]]) -> None:
        """Make the untrained model predict how often each key sounds in ``pieces``, each (T, K)."""
        counts, frames = np.zeros(self.keys, np.int64), 0
        for piece in pieces:
            counts += piece.sum(axis=0, dtype=np.int64)
            frames += len(piece)
        if frames:
            self.output.start_from(torch.from_numpy(counts), frames)

    @property
    def tied_weight(self) -> Tensor | None:
        return self.input.weight if self.tied else None

    def training_loss(
        self,
        inputs: Tensor,
        targets: Tensor,
        state: State,
        mask: Tensor,
        run_as: Run,
        regularization: RegularizationConfig,
    ) -> tuple[Tensor, Tensor, State]:
        """One piece of truncated BPTT.

        inputs, targets: (T, B, K), where ``inputs[t]`` is the frame before ``targets[t]``; mask:
        (T, B) bool, false for padding. Returns the mean nats a frame (0 if all is padding), the
        penalties (a scalar, added to it for the gradient), and the state after the piece, still in
        the graph. R-Drop: as in ``LanguageModel.training_loss``.
        """
        rates = regularization
        if rates.r_drop:
            inputs = inputs.repeat(1, 2, 1)
        x = self.input(inputs, rates.dropout_embedding, run_as.dtype)
        x = dropout(x, rates.input_rate, locked=rates.locked)
        raw, state = self.stack(x, state, run_as, rates)
        h = dropout(raw, rates.output_rate, locked=rates.locked)
        if rates.r_drop:
            frames = targets[mask]
            read = self.output.read(passes_of(h, mask), self.tied_weight, run_as.dtype)
            logits = self.output.logits(read, frames.expand(2, -1, -1))
            loss, nats = consistent_frames(logits, frames, rates.r_drop)
            penalty = activation_penalty(raw, h, mask.repeat(1, 2), rates)
            return nats, loss - nats + penalty, state
        read, frames = self.output.read(h[mask], self.tied_weight, run_as.dtype), targets[mask]
        nats = frame_nats(self.output.logits(read, frames), frames).sum()
        nats = nats / mask.sum().clamp_min(1)
        return nats, activation_penalty(raw, h, mask, rates), state

    def logits(
        self, inputs: Tensor, targets: Tensor, state: State, run_as: Run
    ) -> tuple[Tensor, State]:
        """inputs: (T, B, K), and ``targets`` the frames after them -> the logits of these, of each
        key given the earlier frames and what of its own frame it depends on, (T, B, K), and the
        last state; no dropout."""
        h, state = self.hidden(inputs, state, run_as)
        return self.logits_of(h, targets, run_as), state

    def hidden(self, inputs: Tensor, state: State, run_as: Run) -> tuple[Tensor, State]:
        """inputs: (T, B, K) -> h (T, B, H), from which the next frames follow, and the last state;
        no dropout."""
        h, state = self.stack(self.input(inputs, 0.0, run_as.dtype), state, run_as, None)
        return h, state

    def logits_of(self, h: Tensor, targets: Tensor, run_as: Run) -> Tensor:
        """h: (T, B, H), as ``hidden`` gives it -> the logits of ``targets`` (T, B, K)."""
        read = self.output.read(h, self.tied_weight, run_as.dtype)
        return self.output.logits(read, targets)

    # -- the step contract, with frames for tokens -------------------------------------------

    def start(self, source: None, rows: int) -> State:
        """The state before the first frame; music has no source."""
        return self.stack.start(rows)

    def step(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """frames: (B, K) -> what the next frame follows from (B, R), its logits if the keys are
        independent, and the next state."""
        h, state = self.stack.step(self.input(frames, 0.0, frames.dtype), state)
        return self.output.read(h, self.tied_weight, h.dtype), state

    def draw(self, read: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
        """read: (B, R), as ``step`` gives it -> the next frame (B, K), each key as ``choice`` says,
        and the logits it was chosen by (B, K)."""
        return draw([self.output.walk(read)], choice)
