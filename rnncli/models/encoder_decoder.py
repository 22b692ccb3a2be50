"""The recurrent encoder-decoder: p(target | source), with or without attention.

The sources of a batch have one length, so that nothing is padded before the encoder's last state;
targets may be padded at their end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.models.penalties import activation_penalty
from rnncli.nn.attention import Attention, fresh
from rnncli.nn.attentive_cell import AttentiveCell, second_cell
from rnncli.nn.cells import Cell, make_cell
from rnncli.nn.dropout import dropout
from rnncli.nn.embedding import Embedding
from rnncli.nn.softmax import SampledVocabulary, Softmax
from rnncli.nn.stack import Run, Stack
from rnncli.nn.state import CellState, State
from rnncli.sections import ModelConfig, RegularizationConfig

_SCORES = 1 << 26
"""So many numbers ``attention_weights`` has attention make at once."""


@dataclass(frozen=True)
class DecoderState:
    """A decoder between two tokens. ``memory``: the source's annotations (B, S, M) and ``keys``
    what attention made of them (B, S, K); no more than a dimension of size 0 without attention.
    In a beam ``layers`` has several rows for each of these."""

    layers: State
    memory: Tensor
    keys: Tensor

    def select(self, rows: Tensor) -> DecoderState:
        """The state of ``rows`` (int64, any length, repeats allowed), in that order."""
        return DecoderState(
            self.layers.select(rows),
            self.memory.index_select(0, rows),
            self.keys.index_select(0, rows),
        )

    def regroup(self, rows: Tensor, sources: Tensor | None) -> DecoderState:
        """As ``rnncli.decoding.protocol.DecoderState``: annotations are kept once a source."""
        memory, keys = self.memory, self.keys
        if sources is not None:
            memory, keys = memory.index_select(0, sources), keys.index_select(0, sources)
        return DecoderState(self.layers.regroup(rows, sources), memory, keys)


class EncoderDecoder(nn.Module):
    """Sutskever et al. 2014 without attention; with it, ``look_up`` after, the global attention of
    Luong et al. 2015: h~(t) = tanh(W_c [c(t); h(t)]), c(t) the annotations weighted by their scores
    against h(t), and the softmax reads h~(t). With another ``look_up`` attention is part of the
    decoder's first layer (``rnncli.nn.attentive_cell``). Without attention and with ``context``
    every-step, the decoder of Cho et al. 2014 (app. A): c = tanh(V h(S)), h of the encoder's last
    layer, is read at every step beside y(t-1), and by the output layer. ``readout`` maxout: what
    the softmax reads is the greater of each two units of W_c [c; h; y(t-1)] (there, and Bahdanau et
    al. 2015), not a tanh of W_c [c; h]. One vocabulary for both sides; ``tied``:
    source and target embeddings and the output matrix are one. The encoder may read both ways, the
    decoder cannot. Follows the step contract (``start``, ``step``). Raises UsageError for a
    configuration it cannot have.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        if config.output != "softmax":
            raise UsageError("model.output: an encoder-decoder has output = 'softmax' alone")
        self.vocab_size = vocab_size
        self.tied = config.tied
        self.bridge = config.bridge
        layers = replace(config, tied=False)
        self.source_embedding = Embedding(config, vocab_size)
        self._target_embedding = None if config.tied else Embedding(config, vocab_size)
        self.encoder = Stack(layers, self.source_embedding.size)
        M, E = self.encoder.output_size, self.target_embedding.size
        self.V: nn.Parameter | None = None
        if config.context == "every-step":
            if config.attention != "none":
                raise UsageError(
                    "model.context: attention finds a context of its own for every step; use "
                    "context = 'start', or attention = 'none'"
                )
            self.V = fresh(config.hidden_size, M)
        C = 0 if self.V is None else config.hidden_size
        after_source = replace(layers, direction="forward", initial_state="zero")
        self.decoder = Stack(after_source, E + C)
        H = self.decoder.output_size
        self.attention: Attention | None = None
        readout = config.embedding_size if config.tied else H
        self.W_c: nn.Parameter | None = None
        self.attentive: AttentiveCell | None = None
        if config.attention != "none" and config.look_up != "after":
            self.attentive = self._make_attentive(config, layers, M)
        elif config.attention != "none":
            self.attention = Attention(config.attention, H, M)
            C = M
        self.maxout = config.readout == "maxout"
        if self.maxout:
            self.W_c = fresh(2 * readout, C + H + E)
        elif C or readout != H:
            self.W_c = fresh(readout, C + H)
        self.bridges = nn.ModuleList()
        if config.bridge in ("linear", "mean"):
            self._add_bridges(config, M)
        self.output = Softmax(config, readout, vocab_size)
        if config.embedding_is_fixed:
            for embedding in (self.source_embedding, self.target_embedding):
                embedding.requires_grad_(False)
        if config.bridge == "last" and self.encoder.cells_a_layer > 1:
            raise UsageError(
                "model.bridge: 'last' hands the encoder's last state on as it is, and a "
                "bidirectional encoder has two; use 'linear', 'mean' or 'zero'"
            )

    def _make_attentive(
        self, config: ModelConfig, layers: ModelConfig, memory_size: int
    ) -> AttentiveCell:
        """The decoder's first layer with attention in it; takes the layer's place in the stack."""
        cell = self.decoder.layers[0]
        attention = Attention(config.attention, cell.output_size, memory_size)
        second = None
        if config.look_up == "between":
            second = second_cell(make_cell(layers, memory_size, config.hidden_size))
        attentive = AttentiveCell(cell, attention, config.look_up, memory_size, second)
        self.decoder.cells[0] = attentive
        return attentive

    def _decoder_cells(self) -> list[Cell]:
        """The decoder's cells, without the attention around the first one."""
        cells = self.decoder.layers
        return cells if self.attentive is None else [self.attentive.cell, *cells[1:]]

    def _add_bridges(self, config: ModelConfig, memory_size: int) -> None:
        """One linear map for each part of the decoder's first state, layer by layer."""
        for layer, cell in enumerate(self._decoder_cells()):
            for part in _bridged(cell):
                size, inputs = cell.state_sizes[part], memory_size
                if config.bridge == "linear":
                    inputs = sum(c.state_sizes[part] for c in self._encoder_cells(layer))
                self.bridges.append(nn.Linear(inputs, size))

    def _encoder_cells(self, layer: int) -> list[Cell]:
        width = self.encoder.cells_a_layer
        return list(self.encoder.layers[layer * width : (layer + 1) * width])

    @property
    def target_embedding(self) -> Embedding:
        return self._target_embedding or self.source_embedding

    @property
    def tied_weight(self) -> Tensor | None:
        return self.target_embedding.weight if self.tied else None

    # -- the two halves ----------------------------------------------------------------------

    def encode(
        self, source: Tensor, run_as: Run, rates: RegularizationConfig | None
    ) -> DecoderState:
        """source: (S, B), all of one length, its end included -> the state before the first target
        token. ``rates``: with this dropout, as in training; None: none."""
        x = self.source_embedding(source, rates.dropout_embedding if rates else 0.0)
        if rates is not None:
            x = dropout(x, rates.input_rate, locked=rates.locked)
        start = self.encoder.start(source.shape[1])
        outputs, last = self.encoder(x, start, run_as, rates)
        memory = outputs.to(self.source_embedding.weight.dtype).transpose(0, 1)
        layers = self._first_state(last, memory)
        if rates is not None and rates.dropout:
            memory = F.dropout(memory, rates.dropout)
        if self.attention is not None:
            return DecoderState(layers, memory, self.attention.keys(memory))
        nothing = memory[:, :, :0]
        if self.V is not None:
            c = torch.tanh(F.linear(self._last_outputs(outputs), self.V))
            return DecoderState(layers, c.unsqueeze(1), nothing)
        if self.attentive is not None:
            keys = self.attentive.attention.keys(memory)
            first = self.attentive.first_state(layers.layers[0], memory, keys)
            layers = State((first, *layers.layers[1:]))
        return DecoderState(layers, nothing, nothing)

    def _first_state(self, last: State, memory: Tensor) -> State:
        """What the decoder starts from, by ``bridge``: zero; the encoder's last state (last), or a
        tanh layer on it (linear; Cho et al. 2014) or on the mean annotation (mean)."""
        if self.bridge == "zero":
            return State(tuple(c.zero_state(len(memory)) for c in self._decoder_cells()))
        if self.bridge == "last":
            return last
        maps = iter(self.bridges)
        width = self.encoder.cells_a_layer
        layers: list[CellState] = []
        for layer, cell in enumerate(self._decoder_cells()):
            parts = list(cell.zero_state(len(memory)))
            for part in _bridged(cell):
                v = memory.mean(1)
                if self.bridge == "linear":
                    from_layer = last.layers[layer * width : (layer + 1) * width]
                    v = torch.cat([state[part] for state in from_layer], dim=1)
                parts[part] = torch.tanh(next(maps)(v))
            layers.append(tuple(parts))
        return State(tuple(layers))

    def _last_outputs(self, outputs: Tensor) -> Tensor:
        """outputs: (S, B, M) of the encoder -> those of each direction's last step (B, M)."""
        width = self.encoder.cells_a_layer
        parts = outputs.to(self.source_embedding.weight.dtype).chunk(width, dim=2)
        backward = self.encoder.backward_cells[-width:]
        ends = [p[0] if back else p[-1] for p, back in zip(parts, backward, strict=True)]
        return torch.cat(ends, dim=1)

    def _decoder_input(self, y: Tensor, state: DecoderState) -> Tensor:
        """y: (T, B, E) -> what the decoder reads (T, B, E + C)."""
        if self.V is None:
            return y
        c = state.memory.transpose(0, 1).expand(len(y), -1, -1)
        return torch.cat([y, c.to(y.dtype)], dim=2)

    def _read_out(self, h: Tensor, y: Tensor, state: DecoderState) -> Tensor:
        """h: (T, B, H), y: (T, B, E) -> what the output layer reads (T, B, R)."""
        if self.W_c is None:
            return h
        parts = [h]
        if self.attention is not None:
            context, _ = self.attention(h.transpose(0, 1), state.keys, state.memory)
            parts = [context.transpose(0, 1), h]
        elif self.V is not None:
            parts = [state.memory.transpose(0, 1).expand(len(h), -1, -1), h]
        if not self.maxout:
            return torch.tanh(F.linear(torch.cat(parts, dim=2), self.W_c))
        pairs = F.linear(torch.cat([*parts, y.to(h.dtype)], dim=2), self.W_c)
        return pairs.view(*pairs.shape[:2], -1, 2).amax(3)

    # -- training ----------------------------------------------------------------------------

    def training_loss(
        self,
        source: Tensor,
        inputs: Tensor,
        targets: Tensor,
        mask: Tensor,
        run_as: Run,
        rates: RegularizationConfig,
        sampling: SampledVocabulary | None = None,
    ) -> tuple[Tensor, Tensor]:
        """source: (S, B); inputs, targets: (T, B), where ``inputs[t]`` is the token before
        ``targets[t]``; mask: (T, B), false for padding. Returns the mean nats a target token, and
        the penalties and what label smoothing adds to it for the gradient."""
        state = self.encode(source, run_as, rates)
        y = self.target_embedding(inputs, rates.dropout_embedding)
        y = dropout(y, rates.input_rate, locked=rates.locked)
        raw, _ = self.decoder(self._decoder_input(y, state), state.layers, run_as, rates)
        raw = raw.to(self.source_embedding.weight.dtype)
        h = dropout(self._read_out(raw, y, state), rates.output_rate, locked=rates.locked)
        rows, flat = h[mask], targets[mask]
        scale = torch.full(flat.shape, 1.0 / max(1, len(flat)), device=flat.device)
        nats = self.output.loss(rows, flat, scale, self.tied_weight, run_as.dtype, sampling)
        extra = activation_penalty(raw, raw, mask, rates)
        if rates.label_smoothing:
            extra = extra + rates.label_smoothing * self._smoothing(rows, flat)
        return nats, extra

    def _smoothing(self, rows: Tensor, targets: Tensor) -> Tensor:
        """What the mean of -log p over all tokens has more than that of the targets (Szegedy et al.
        2016, sec. 7): the target's logit less the mean logit. rows: (N, R), targets: (N,)."""
        weight, b = self.output.matrix(self.tied_weight), self.output.b
        own = (rows * F.embedding(targets, weight)).sum(1) + b[targets]
        return (own - rows @ weight.mean(0) - b.mean()).mean()

    def nats(self, source: Tensor, inputs: Tensor, targets: Tensor, run_as: Run) -> Tensor:
        """-log p of every target (T, B); shapes as in ``training_loss``, no dropout."""
        state = self.encode(source, run_as, None)
        y = self.target_embedding(inputs)
        raw, _ = self.decoder(self._decoder_input(y, state), state.layers, run_as, None)
        h = self._read_out(raw.to(self.source_embedding.weight.dtype), y, state)
        flat = self.output.nats(h.reshape(-1, h.shape[2]), targets.reshape(-1), self.tied_weight)
        return flat.view(targets.shape)

    @property
    def attends(self) -> bool:
        """Whether there is attention, and so an alignment."""
        return self.attention is not None or self.attentive is not None

    def attention_weights(self, source: Tensor, inputs: Tensor) -> Tensor:
        """source: (S, B), inputs: (T, B), the token before each target -> how much each target
        looked at each source token (T, B, S), without autograd. Raises UsageError for a model
        without attention."""
        if not self.attends:
            raise UsageError(
                "model.attention: this model has none, so nothing aligns its targets with sources"
            )
        state = self.encode(source, Run(), None)
        y = self.target_embedding(inputs)
        if self.attention is not None:
            h, _ = self.decoder(y, state.layers, Run(), None)
            h = h.to(y.dtype)
            # Additive scores take (B, T, S, H) at once: of a very long source few steps at a time.
            steps = max(1, _SCORES // (state.keys.numel() + 1))
            parts = h.transpose(0, 1).split(steps, 1)
            found = [self.attention(part, state.keys, state.memory)[1] for part in parts]
            return torch.cat(found, 1).transpose(0, 1)
        assert self.attentive is not None
        cell, first, seen = self.attentive, state.layers.layers[0], []
        projected = cell.project(y, first, y.dtype)
        matrices = cell.step_weights()
        for x in projected:
            first, looked = cell.step_and_weights(
                x, first, lambda name, v: F.linear(v, matrices[name])
            )
            seen.append(looked)
        return torch.stack(seen)

    # -- the step contract -------------------------------------------------------------------

    def start(self, source: Tensor, rows: int) -> DecoderState:
        """source: (S, ``rows``) -> the state before the first target token."""
        return self.encode(source, Run(), None)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """tokens: (B,) -> logits (B, V) and the next state. The rows of one source, side by side,
        read its annotations together, as if they were its time steps."""
        sources = len(state.memory)
        y = self.target_embedding(tokens.reshape(sources, -1).t())
        x = self._decoder_input(y, state).transpose(0, 1).flatten(0, 1)
        h, layers = self.decoder.step(x, state.layers)
        h = h.reshape(sources, -1, h.shape[1]).transpose(0, 1)
        read = self._read_out(h, y, state).transpose(0, 1).flatten(0, 1)
        logits = self.output.logits(read, self.tied_weight)
        return logits, DecoderState(layers, state.memory, state.keys)


def _bridged(cell: Cell) -> list[int]:
    """The parts of a cell's state that a bridge gives a value; the others start at zero."""
    return [part for part, kind in enumerate(cell.part_kinds) if kind in ("hidden", "cell")]
