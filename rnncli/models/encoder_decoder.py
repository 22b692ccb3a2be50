"""The recurrent encoder-decoder: p(target | source), with or without attention.

The sources of a batch have one length, so that nothing is padded before the encoder's last state;
targets may be padded at their end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.models.decoder_state import DecoderState
from rnncli.models.packed import Packed
from rnncli.nn.attention import Attention, fresh
from rnncli.nn.attentive_cell import AttentiveCell, second_cell
from rnncli.nn.bridge import Bridge
from rnncli.nn.cells import Cell, finished, make_cell
from rnncli.nn.cells.gru import GRUCho2014
from rnncli.nn.cells.initialization import fill
from rnncli.nn.cells.zoneout import Zoneout
from rnncli.nn.dropout import dropout
from rnncli.nn.embedding import Embedding
from rnncli.nn.layered_cell import LayeredCell
from rnncli.nn.softmax import Softmax, keep_fixed
from rnncli.nn.stack import Run, Stack, require_frozen
from rnncli.nn.state import State
from rnncli.nn.summary_cell import SummaryGRU
from rnncli.sections import ModelConfig, RegularizationConfig

StepOfStack = Callable[[Tensor, State], tuple[Tensor, State]]
"""As ``Stack.step``."""


class EncoderDecoder(nn.Module):
    """Sutskever et al. 2014 without attention; with it, ``look_up`` after, the global attention of
    Luong et al. 2015: h~(t) = tanh(W_c [c(t); h(t)]), c(t) the annotations weighted by their scores
    against h(t), and the softmax reads h~(t). ``look_up`` layers: h(t) is that of the decoder's
    first layer, and the layers above read [h(t); c(t)] (the stack of Wu et al. 2016, sec. 3, with
    the context of the same step); no layer waits for attention, so that all steps are run at once.
    With another ``look_up`` attention is part of the decoder's first layer
    (``rnncli.nn.attentive_cell``), with feeding it follows the last one. Without attention,
    ``context`` every-step is the decoder of Cho et al. 2014 (app. A): c = tanh(V h(S)), h of the
    encoder's last layer, is read at every step beside y(t-1) (by ``SummaryGRU`` in place of the
    unit of Cho et al.), and by the output layer. ``readout`` maxout: what the softmax reads is the
    greater of each two units of W_c [c; h; y(t-1)] (there, and Bahdanau et al. 2015), not a tanh of
    W_c [c; h]. ``tied``: the target's embedding and the output matrix are one; the source's is,
    too, by ``shared_embedding``. The encoder may read both ways, the decoder cannot. Follows the
    step contract (``start``, ``step``). Raises UsageError for a configuration it cannot have.
    """

    def __init__(
        self, config: ModelConfig, vocab_size: int, source_vocab_size: int | None = None
    ) -> None:
        """``source_vocab_size``: None for one vocabulary of both sides."""
        super().__init__()
        if config.output != "softmax":
            raise UsageError("model.output: an encoder-decoder has output = 'softmax' alone")
        if config.look_up != "after" and config.attention == "none":
            raise UsageError(
                f"model.look_up: {config.look_up!r} is a place for attention, and there is none; "
                "use look_up = 'after', or attention = 'general'"
            )
        self.vocab_size = vocab_size
        self.tied = config.tied
        layers = replace(config.sides()[0], tied=False)
        shared = config.shared_embedding
        if shared is None:
            shared = config.tied and source_vocab_size is None
        self.source_embedding = Embedding(config, source_vocab_size or vocab_size)
        self._target_embedding = None if shared else Embedding(config, vocab_size)
        of_encoder = replace(config.encoder_side(), tied=False)
        self.encoder = Stack(of_encoder, self.source_embedding.size)
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
        self.upper: Stack | None = None
        if config.look_up == "layers":
            if config.layers == 1 or len(config.cell_names()) > 1:
                raise UsageError(
                    "model.look_up: 'layers' stands between layers of one cell; use layers = 2 or "
                    "more and one name in cell, or look_up = 'after'"
                )
            upper = replace(after_source, layers=config.layers - 1)
            after_source = replace(after_source, layers=1)
        self.decoder = Stack(after_source, E + C)
        require_frozen(config, [self.encoder, self.decoder])
        first = self.decoder.layers[0]
        if C and type(first.cell if isinstance(first, Zoneout) else first) is GRUCho2014:
            start, size = after_source.cell_start(0), after_source.layer_sizes()[0]
            summing = SummaryGRU(start, after_source.cell_options(0), E, size, C)
            own = dict(summing.named_parameters())  # which has no U
            fixed_here = tuple(name for name in after_source.frozen if name in own)
            self.decoder.cells[0] = finished(summing, replace(after_source, frozen=fixed_here))
        H = self.decoder.output_size
        self.attention: Attention | None = None
        self.W_c: nn.Parameter | None = None
        self.attentive: AttentiveCell | None = None
        if config.attention != "none" and config.look_up not in ("after", "layers"):
            self.attentive = self._make_attentive(config, layers, M)
        elif config.attention != "none":
            self.attention = Attention(config.attention, H, M)
            C = M
            if config.look_up == "layers":
                self.upper = Stack(upper, H + M)
                H = self.upper.output_size
        readout = config.embedding_size if config.tied else H
        self.maxout = config.readout == "maxout"
        if self.maxout:
            self.W_c = fresh(2 * readout, C + H + E)
        elif C or readout != H:
            self.W_c = fresh(readout, C + H)
        summary_size = 0 if self.V is None else C
        self.bridges = Bridge(config.bridge, self.encoder, self._decoder_cells(), summary_size)
        if config.init != "default":
            for weight in self._looking_up():
                fill(weight, config)
        self.output = Softmax(config, readout, vocab_size)
        keep_fixed(self.output, config)
        fixed = [side.embedding_is_fixed for side in (config.encoder_side(), config.sides()[0])]
        if shared:
            fixed = [all(fixed)] * 2
        for embedding, stays in zip(
            (self.source_embedding, self.target_embedding), fixed, strict=True
        ):
            embedding.requires_grad_(not stays)

    def _make_attentive(
        self, config: ModelConfig, layers: ModelConfig, memory_size: int
    ) -> AttentiveCell:
        """The decoder's first layer with attention in it, of ``feeding`` all layers with attention
        above the last; takes their place in the stack."""
        cell = self.decoder.layers[0]
        if config.look_up == "feeding" and len(self.decoder.cells) > 1:
            if config.residual != "none":
                raise UsageError(
                    "model.residual: with look_up = 'feeding' all layers of the decoder are one "
                    "step, and nothing leads past them; use residual = 'none', or look_up = 'after'"
                )
            cell = LayeredCell(self.decoder.layers)
            self.decoder.cells, self.decoder.backward_cells = nn.ModuleList([cell]), [False]
        attention = Attention(
            config.attention, cell.output_size, memory_size, coverage=config.coverage
        )
        second = None
        if config.look_up == "between":
            second = second_cell(make_cell(layers, memory_size, config.hidden_size))
        attentive = AttentiveCell(cell, attention, config.look_up, memory_size, second)
        self.decoder.cells[0] = attentive
        return attentive

    def _looking_up(self) -> list[nn.Parameter]:
        """The weights between the layers: of attention, bridge, summary and readout."""
        modules: list[nn.Module | None] = [self.attention, self.bridges]
        weights = [self.V, self.W_c]
        if self.attentive is not None:
            modules.append(self.attentive.attention)
            weights += [self.attentive.W_c, getattr(self.attentive, "W_f", None)]
        within = [weight for one in modules if one is not None for weight in one.parameters()]
        return [*within, *(weight for weight in weights if weight is not None)]

    def _decoder_cells(self) -> list[Cell]:
        """The decoder's cells, without the attention around the first one."""
        cells = self.decoder.layers
        if self.upper is not None:
            return [*cells, *self.upper.layers]
        if self.attentive is None:
            return cells
        inner = self.attentive.cell
        return [*(inner.layers if isinstance(inner, LayeredCell) else [inner]), *cells[1:]]

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
        c: Tensor | None = None
        if self.V is not None:
            c = torch.tanh(F.linear(self._last_outputs(outputs), self.V))
        layers = self.bridges(last, memory, c)
        if rates is not None and rates.dropout:
            memory = F.dropout(memory, rates.dropout)
        if self.attention is not None:
            return DecoderState(layers, memory, self.attention.keys(memory))
        nothing = memory[:, :, :0]
        if c is not None:
            return DecoderState(layers, c.unsqueeze(1), nothing)
        if self.attentive is not None:
            first, others = layers.layers[0], layers.layers[1:]
            if isinstance(self.attentive.cell, LayeredCell):
                rate = rates.dropout if rates else 0.0
                first, others = self.attentive.cell.first_state(layers.layers, rate), ()
            layers = State((self.attentive.first_state(first, memory), *others))
            return DecoderState(layers, memory, self.attentive.attention.keys(memory))
        return DecoderState(layers, nothing, nothing)

    def _last_outputs(self, outputs: Tensor) -> Tensor:
        """outputs: (S, B, M) of the encoder -> those of each direction's last step (B, M)."""
        width = self.encoder.cells_a_layer
        parts = outputs.to(self.source_embedding.weight.dtype).chunk(width, dim=2)
        backward = self.encoder.backward_cells[-width:]
        ends = [p[0] if back else p[-1] for p, back in zip(parts, backward, strict=True)]
        return torch.cat(ends, dim=1)

    def stack_state(self, state: DecoderState) -> State:
        """The state of the decoder's layers, for a run of them."""
        if self.attentive is None:
            return state.layers
        first, *others = state.layers.layers
        return State(((*first, state.memory, state.keys), *others))

    def _decoder_state(self, layers: State, before: DecoderState) -> DecoderState:
        """The state after a step, ``layers`` being what ``stack_state`` has become."""
        if self.attentive is not None:
            first, *others = layers.layers
            layers = State((first[:-2], *others))
        return DecoderState(layers, before.memory, before.keys)

    def _source(self, state: DecoderState, like: Tensor) -> Tensor:
        """The source's c of Cho et al. for every row and step of ``like`` (T, B, ...)."""
        T, B = like.shape[:2]
        c = state.memory[:, 0].repeat_interleave(B // len(state.memory), 0)
        return c.to(like.dtype).expand(T, -1, -1)

    def decoder_input(self, y: Tensor, state: DecoderState) -> Tensor:
        """y: (T, B, E) -> what the decoder reads (T, B, E + C)."""
        return y if self.V is None else torch.cat([y, self._source(state, y)], dim=2)

    def context(self, h: Tensor, state: DecoderState) -> Tensor | None:
        """h: (T, B, H) of the layer that attention follows -> what it looked up (T, B, M); Cho et
        al.'s c at every step; None where there is neither, or where the layer itself looks up."""
        if self.attention is not None:
            found: Tensor = self.attention(h.transpose(0, 1), state.keys, state.memory)[0]
            return found.transpose(0, 1)
        return None if self.V is None else self._source(state, h)

    def _run_decoder(
        self, y: Tensor, state: DecoderState, run_as: Run, rates: RegularizationConfig | None
    ) -> tuple[Tensor, Tensor | None]:
        """y: (T, B, E) -> the last layer's outputs (T, B, H) and the contexts (T, B, M)."""
        before = self.stack_state(state)
        own = len(self.decoder.cells)
        lower = State(before.layers[:own])
        h, _ = self.decoder(self.decoder_input(y, state), lower, run_as, rates)
        h = h.to(self.source_embedding.weight.dtype)
        context = self.context(h, state)
        if self.upper is None or context is None:
            return h, context
        x = torch.cat([h, context], dim=2)
        if rates is not None:
            x = dropout(x, rates.dropout, locked=rates.locked)
        h, _ = self.upper(x, State(before.layers[own:]), run_as, rates)
        return h.to(context.dtype), context

    def read_out(
        self, h: Tensor, y: Tensor, context: Tensor | None, W_c: Packed | None = None
    ) -> Tensor:
        """h: (T, B, H), y: (T, B, E), context: (T, B, M) -> what the output layer reads (T, B, R).
        ``W_c``: the matrix in another form."""
        if self.W_c is None:
            return h
        parts = [h] if context is None else [context, h]
        if self.maxout:
            parts.append(y.to(h.dtype))
        read = torch.cat(parts, dim=2)
        made = F.linear(read, self.W_c) if W_c is None else W_c(read[0]).unsqueeze(0)
        if not self.maxout:
            return torch.tanh(made)
        return made.view(*made.shape[:2], -1, 2).amax(3)

    # -- training ----------------------------------------------------------------------------

    def readings(
        self, source: Tensor, inputs: Tensor, run_as: Run, rates: RegularizationConfig | None
    ) -> tuple[Tensor, Tensor]:
        """source: (S, N), inputs: (T, B), the token before each target; of each source there are
        B / N targets beside each other. -> the decoder's outputs (T, B, H) and what the output
        layer reads of them (T, B, R). ``rates``: with this dropout; None: none."""
        state = self.encode(source, run_as, rates)
        copies = inputs.shape[1] // source.shape[1]
        if copies > 1:
            each = torch.arange(source.shape[1], device=source.device).repeat_interleave(copies)
            state = state.regroup(each, None)
        y = self.target_embedding(inputs, rates.dropout_embedding if rates else 0.0)
        if rates is not None:
            y = dropout(y, rates.input_rate, locked=rates.locked)
        raw, context = self._run_decoder(y, state, run_as, rates)
        h = self.read_out(raw, y, context)
        if rates is not None:
            h = dropout(h, rates.output_rate, locked=rates.locked)
        return raw, h

    def nats(self, source: Tensor, inputs: Tensor, targets: Tensor, run_as: Run) -> Tensor:
        """-log p of every target (T, B); source: (S, B), inputs and targets: (T, B), no dropout."""
        _, h = self.readings(source, inputs, run_as, None)
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
        exact = self._exact_run
        state = self.encode(source, exact, None)
        y = self.target_embedding(inputs)
        if self.attention is not None:
            lower = State(state.layers.layers[: len(self.decoder.cells)])
            h, _ = self.decoder(y, lower, exact, None)
            h = h.to(y.dtype)
            _, weights = self.attention.forward(h.transpose(0, 1), state.keys, state.memory)
            return weights.transpose(0, 1)
        assert self.attentive is not None
        cell, first, seen = self.attentive, self.stack_state(state).layers[0], []
        projected = cell.project(y, first, y.dtype)
        matrices = cell.step_weights()
        for x in projected:
            first, looked = cell.step_and_weights(
                x, first, lambda name, v: F.linear(v, matrices[name])
            )
            seen.append(looked)
        return torch.stack(seen)

    @property
    def _exact_run(self) -> Run:
        """With operands in the weights' type."""
        return Run(dtype=self.source_embedding.weight.dtype)

    # -- the step contract -------------------------------------------------------------------

    def start(self, source: Tensor, rows: int) -> DecoderState:
        """source: (S, ``rows``) -> the state before the first target token."""
        return self.encode(source, self._exact_run, None)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """tokens: (B,) -> logits (B, V) and the next state."""
        y = self.target_embedding(tokens).unsqueeze(0)
        h, context, after = self.decode_step(
            y, state, self.decoder.step, self.upper.step if self.upper else None
        )
        logits = self.output.logits(self.read_out(h, y, context)[0], self.tied_weight)
        return logits, after

    def decode_step(
        self, y: Tensor, state: DecoderState, lower: StepOfStack, upper: StepOfStack | None
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """y: (1, B, E) -> the last layer's output (1, B, H), the context (1, B, M) and the next
        state. ``lower``, ``upper``: a step of the layers below and above attention."""
        before = self.stack_state(state)
        own = len(self.decoder.cells)
        h, after = lower(self.decoder_input(y, state)[0], State(before.layers[:own]))
        context = self.context(h.unsqueeze(0), state)
        if upper is not None and context is not None:
            x = torch.cat([h, context[0]], dim=1)
            h, above = upper(x, State(before.layers[own:]))
            after = State((*after.layers, *above.layers))
        return h.unsqueeze(0), context, self._decoder_state(after, state)
