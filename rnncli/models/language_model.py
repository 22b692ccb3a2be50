"""The recurrent language model: p(x(t) | x(1) ... x(t-1)) by word, piece, character or byte."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.models.penalties import activation_penalty
from rnncli.nn.consistency import consistent_loss, passes_of
from rnncli.nn.dropout import dropout
from rnncli.nn.embedding import Embedding
from rnncli.nn.softmax import AdaptiveSoftmax, SampledVocabulary, Softmax, keep_fixed
from rnncli.nn.stack import Run, Stack, require_frozen
from rnncli.nn.state import State
from rnncli.sections import ModelConfig, RegularizationConfig


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, softmax. Follows the step contract (``start``, ``step``)."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding = Embedding(config, vocab_size)
        self.stack = Stack(config, self.embedding.size)
        output = AdaptiveSoftmax if config.output == "adaptive" else Softmax
        self.output = output(config, self.stack.output_size, vocab_size)
        self.tied = config.tied
        if config.tied and self.stack.output_size != config.embedding_size:
            raise UsageError(
                f"model.tied: the layers give {self.stack.output_size} units, and the embedding "
                f"that is to be the output's matrix has {config.embedding_size}; "
                f"use embedding_size = {self.stack.output_size} or tied = false"
            )
        if config.embedding_is_fixed:
            self.embedding.requires_grad_(False)
        require_frozen(config, [self.stack])
        keep_fixed(self.output, config)
        self.fixed = frozenset(n for n, p in self.named_parameters() if not p.requires_grad)

    def take_gradients(self) -> list[nn.Parameter]:
        """Make everything that is learned want gradients, as after building; what does, in order.
        (A loaded model wants none.)"""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in self.fixed)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def tied_weight(self) -> Tensor | None:
        return self.embedding.weight if self.tied else None

    # -- training ----------------------------------------------------------------------------

    def training_loss(
        self,
        inputs: Tensor,
        targets: Tensor,
        state: State,
        mask: Tensor | None,
        run_as: Run,
        regularization: RegularizationConfig,
        sampling: SampledVocabulary | None = None,
    ) -> tuple[Tensor, Tensor, State]:
        """One piece of truncated BPTT.

        inputs, targets: (T, B); mask: (T, B) bool, false for padding. Returns the mean nats a
        token, the penalties (a scalar, added to it for the gradient), and the state after the
        piece, still in the graph. With R-Drop the state is that of B columns and, beside them, of
        the same B once more, whose dropout is another.
        """
        rates = regularization
        if rates.r_drop:
            inputs = inputs.repeat(1, 2)
        x = self.embedding(inputs, rates.dropout_embedding)
        x = dropout(x, rates.input_rate, locked=rates.locked)
        raw, state = self.stack(x, state, run_as, rates)
        h = dropout(raw, rates.output_rate, locked=rates.locked)
        if rates.r_drop:
            assert isinstance(self.output, Softmax)
            loss, nats = consistent_loss(
                passes_of(h, mask), self.output.matrix(self.tied_weight), self.output.b,
                targets.flatten() if mask is None else targets[mask], rates.r_drop, run_as.dtype,
            )  # fmt: skip
            mask = None if mask is None else mask.repeat(1, 2)
            return nats, loss - nats + activation_penalty(raw, h, mask, rates), state
        rows, flat = h.reshape(-1, h.shape[-1]), targets.reshape(-1)
        if mask is None:
            scale = torch.full(flat.shape, 1.0 / flat.numel(), device=flat.device)
        else:
            keep = mask.reshape(-1).nonzero().squeeze(1)
            rows, flat = rows[keep], flat[keep]
            scale = torch.full(flat.shape, 1.0 / max(1, flat.numel()), device=flat.device)
        nats = self.output.loss(rows, flat, scale, self.tied_weight, run_as.dtype, sampling)
        return nats, activation_penalty(raw, h, mask, regularization), state

    # -- evaluation --------------------------------------------------------------------------

    def nats(
        self, inputs: Tensor, targets: Tensor, state: State, run_as: Run
    ) -> tuple[Tensor, State]:
        """-log p of every target: (T, B), and the state after the last; no dropout."""
        h, state = self.hidden(inputs, state, run_as)
        flat = self.output.nats(h.reshape(-1, h.shape[-1]), targets.reshape(-1), self.tied_weight)
        return flat.view(targets.shape), state

    def hidden(
        self,
        inputs: Tensor,
        state: State,
        run_as: Run,
        rates: RegularizationConfig | None = None,
    ) -> tuple[Tensor, State]:
        """inputs: (T, B) -> what the output layer reads (T, B, H), in the weights' type, and the
        state. ``rates``: with this dropout, as in training; None: none."""
        x = self.embedding(inputs, rates.dropout_embedding if rates else 0.0)
        if rates is not None:
            x = dropout(x, rates.input_rate, locked=rates.locked)
        h, state = self.stack(x, state, run_as, rates)
        if rates is not None:
            h = dropout(h, rates.output_rate, locked=rates.locked)
        return h.to(self.embedding.weight.dtype), state

    # -- the step contract -------------------------------------------------------------------

    def start(self, source: None, rows: int) -> State:
        """The state before the first token; a language model has no source."""
        return self.stack.start(rows)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """tokens (B,) -> logits (B, V) and the next state."""
        h, state = self.stack.step(self.embedding(tokens), state)
        return self.output.logits(h, self.tied_weight), state
