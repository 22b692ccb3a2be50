"""An encoder-decoder: what depends on what, step by step and at once, the bridges, smoothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.models.decoder_state import DecoderState
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.pair_loss import pair_loss
from rnncli.models.prepared_decoder import prepare_decoder
from rnncli.nn.stack import Run
from rnncli.nn.state import State
from rnncli.nn.state_dropout import StateDropout
from rnncli.sections import ModelConfig, RegularizationConfig

V, S, T, B = 11, 5, 4, 3
RUN = Run("auto", torch.float64)
KINDS: tuple[dict[str, Any], ...] = (
    {"bridge": "last"},
    {"cell": "gru", "attention": "general", "direction": "bidirectional"},
    {"attention": "additive", "direction": "bidirectional", "tied": True, "bridge": "mean"},
    {"cell": "gru-cho2014", "attention": "dot", "bridge": "zero"},
    {"cell": "mingru", "attention": "general", "layers": 1},
    {"cell": "gru-cho2014", "context": "every-step", "readout": "maxout", "layers": 1},
    {"attention": "general", "readout": "maxout", "tied": True, "direction": "bidirectional"},
    {"cell": "gru", "attention": "additive", "look_up": "before", "layers": 1},
    {"attention": "general", "look_up": "feeding", "direction": "bidirectional", "tied": True},
    {"cell": "gru", "attention": "dot", "look_up": "between", "bridge": "zero", "layers": 1},
    {"cell": "gru", "attention": "additive", "look_up": "between", "coverage": True},
    {"attention": "additive", "look_up": "feeding", "coverage": True, "encoder_layers": 1},
    {"attention": "general", "encoder_layers": 3, "shared_embedding": True},
    {"attention": "general", "look_up": "layers", "layers": 3, "residual": "add", "tied": True},
    {"cell": "gru", "attention": "additive", "look_up": "layers", "readout": "maxout"},
    {"encoder_cell": "mingru", "attention": "general", "encoder_layers": 3, "tied": True},
    {"cell": "gru", "encoder_cell": "lstm,elman", "attention": "additive", "look_up": "feeding"},
    {"attention": "general", "direction": "alternating", "layers": 3, "residual": "highway"},
    {"attention": "general", "look_up": "feeding", "layer_norm": True},
    {"cell": "gru", "attention": "additive", "look_up": "between", "layer_norm": True, "layers": 1},
    {"cell": "elman", "attention": "dot", "look_up": "before", "layer_norm": True, "layers": 1},
    {"attention": "general", "look_up": "between", "zoneout": 0.1, "transition_depth": 2},
    {"cell": "rhn", "attention": "general", "look_up": "feeding", "zoneout": 0.1},
)


def make(**config: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    sizes = {"layers": 2, "hidden_size": 6, "embedding_size": 4, "init": "normal"}
    model = EncoderDecoder(ModelConfig(**{**sizes, "init_scale": 0.5, **config}), V).double()
    spread(model)
    return model.eval()


def spread(model: EncoderDecoder) -> None:
    """Parameters that begin at zero do not stay there."""
    generator = torch.Generator().manual_seed(7)
    for weight in model.parameters():
        if not weight.any():
            weight.data.normal_(generator=generator)


def vary_gains(model: EncoderDecoder) -> None:
    """Gains of layer normalisation that are not all 1."""
    generator = torch.Generator().manual_seed(8)
    for name, weight in model.named_parameters():
        if name.endswith(".g"):
            weight.data.uniform_(0.5, 1.5, generator=generator)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1, V, (S, B), generator=generator)
    both = torch.randint(1, V, (T + 1, B), generator=generator)
    both[0] = 0
    return source, both[:-1], both[1:]


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_step_by_step_gives_the_nats_of_all_at_once(config: dict[str, Any]) -> None:
    model = make(**config)
    source, inputs, targets = batch()
    with torch.no_grad():
        nats = model.nats(source, inputs, targets, RUN)
        state = model.start(source, B)
        for t in range(T):
            logits, state = model.step(inputs[t], state)
            each = -torch.log_softmax(logits, 1).gather(1, targets[t].unsqueeze(1)).squeeze(1)
            torch.testing.assert_close(each, nats[t])


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_every_source_token_matters_and_no_later_target(config: dict[str, Any]) -> None:
    model = make(**config)
    source, inputs, targets = batch()
    with torch.no_grad():
        nats = model.nats(source, inputs, targets, RUN)
        for s in range(S):
            other = source.clone()
            other[s] = (other[s] + 1) % V
            changed = model.nats(other, inputs, targets, RUN)
            if config.get("bridge") != "zero" or config.get("attention", "none") != "none":
                assert (changed - nats).abs().amax(0).min() > 1e-9
        later = inputs.clone()
        later[-1] = (later[-1] + 1) % V
        changed = model.nats(source, later, targets, RUN)
        torch.testing.assert_close(changed[:-1], nats[:-1])
        assert (changed[-1] - nats[-1]).abs().min() > 1e-9


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_the_state_goes_with_its_rows(config: dict[str, Any]) -> None:
    model = make(**config)
    source, inputs, _ = batch()
    rows = torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        _, state = model.step(inputs[0], model.start(source, B))
        mine, _ = model.step(inputs[1][rows], state.select(rows))
        whole, _ = model.step(inputs[1], state)
    torch.testing.assert_close(mine, whole[rows])


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize("beam", [False, True])
def test_rows_go_on_as_they_would_alone(config: dict[str, Any], beam: bool) -> None:
    """Selected in any order, or as beams that have the annotations once a source."""
    chosen: list[tuple[list[int], list[int] | None]] = [([2, 1], None), ([0, 1, 1], None)]
    if beam:
        chosen = [([0, 0, 1, 1, 2, 2], None), ([1, 0, 2, 2, 4, 5], None), ([2, 2, 5, 4], [1, 2])]
    model = make(**config)
    source, inputs, _ = batch()
    with torch.no_grad():
        state = model.start(source, B)
        lines = [model.start(source[:, [k]], 1) for k in range(B)]
        for t, (rows, sources) in enumerate(chosen):
            if beam:
                kept = None if sources is None else torch.tensor(sources)
                state = state.regroup(torch.tensor(rows), kept)
            else:
                state = state.select(torch.tensor(rows))
            lines = [lines[row] for row in rows]
            tokens = inputs[t].repeat(3)[: len(rows)]
            logits, state = model.step(tokens, state)
            for k in range(len(rows)):
                alone, lines[k] = model.step(tokens[k : k + 1], lines[k])
                torch.testing.assert_close(logits[k : k + 1], alone)
        assert len(state.memory) == (2 if beam else 3)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_prepared_weights_give_the_models_own_step(config: dict[str, Any]) -> None:
    model = make(**config).float()
    source, inputs, _ = batch()
    for precision, tolerance in (("float32", 1e-5), ("int8", 0.3)):
        with torch.inference_mode():
            prepared = prepare_decoder(model, precision)
            mine, its = prepared.start(source, B), model.start(source, B)
            for t in range(T):
                logits, mine = prepared.step(inputs[t], mine)
                expected, its = model.step(inputs[t], its)
                assert (logits - expected).abs().max() < tolerance
                assert logits.std() > 0.01


@pytest.mark.parametrize(
    "config", [k for k in KINDS if k.get("attention", "none") != "none"], ids=str
)
def test_attention_weights_are_those_that_the_decoder_used(config: dict[str, Any]) -> None:
    model = make(**config)
    source, inputs, targets = batch()
    with torch.no_grad():
        weights = model.attention_weights(source, inputs)
        assert weights.shape == (T, B, S)
        torch.testing.assert_close(weights.sum(2), torch.ones(T, B, dtype=torch.float64))
        before = model.nats(source, inputs, targets, RUN)
        state = model.start(source, B)
        attention = model.attention or (model.attentive and model.attentive.attention)
        assert attention
        seen = []
        forward = type(attention).scores

        def spy(self: Any, queries: Tensor, keys: Tensor, covered: Tensor | None = None) -> Tensor:
            found = forward(self, queries, keys, covered)
            seen.append(torch.softmax(found, 2)[:, 0])
            return found

        for t in range(T):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(attention), "scores", spy)
                logits, state = model.step(inputs[t], state)
            each = -torch.log_softmax(logits, 1).gather(1, targets[t].unsqueeze(1)).squeeze(1)
            torch.testing.assert_close(each, before[t])
        torch.testing.assert_close(torch.stack(seen), weights)


def test_a_model_without_attention_has_no_alignment() -> None:
    source, inputs, _ = batch()
    with pytest.raises(UsageError, match="this model has none"):
        make(bridge="last").attention_weights(source, inputs)


def test_padding_of_targets_changes_nothing() -> None:
    model = make(attention="general", direction="bidirectional").train()
    source, inputs, targets = batch()
    rates = RegularizationConfig(label_smoothing=0.1)
    mask = torch.ones(T, B, dtype=torch.bool)
    mask[-1, 1] = mask[-2:, 2] = False
    found = []
    for filler in (3, 7):
        x, y = inputs.clone(), targets.clone()
        y[~mask] = filler
        x[1:][~mask[:-1]] = filler
        nats, extra = pair_loss(model, source, x, y, mask, RUN, rates)
        gradients = torch.autograd.grad(nats + extra, list(model.parameters()))
        found.append((nats, extra, *gradients))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_label_smoothing_are_torchs(tied: bool) -> None:
    model = make(attention="general", direction="bidirectional", tied=tied).train()
    source, inputs, targets = batch()
    mask = torch.ones(T, B, dtype=torch.bool)
    rates = RegularizationConfig(label_smoothing=0.2)
    nats, extra = pair_loss(model, source, inputs, targets, mask, RUN, rates)
    state = model.start(source, B)
    logits = []
    for t in range(T):
        step, state = model.step(inputs[t], state)
        logits.append(step)
    rows = torch.cat(logits)
    expected = torch.nn.functional.cross_entropy(rows, targets.reshape(-1), label_smoothing=0.2)
    torch.testing.assert_close(nats + extra, expected)
    mine = torch.autograd.grad(nats + extra, list(model.parameters()), retain_graph=True)
    its = torch.autograd.grad(expected, list(model.parameters()))
    for a, b in zip(mine, its, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_weights_between_the_layers_start_as_all_do(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sizes = {"layers": 2, "hidden_size": 6, "embedding_size": 4}
    drawn = {"init": "uniform", "init_scale": 1e-3, "forget_bias": 0.0}
    model = EncoderDecoder(ModelConfig(**{**sizes, **drawn, **config, "layer_norm": False}), V)
    for name, weight in model.named_parameters():
        if "highways" not in name and config.get("cell") != "rhn":  # whose gates start closed
            assert weight.abs().max() <= 1e-3, name


def test_two_passes_are_to_agree() -> None:
    """R-Drop beside its formula, over the dropout that the two passes drew."""
    model = make(attention="general", direction="bidirectional", tied=True).train()
    source, inputs, targets = batch()
    mask = torch.ones(T, B, dtype=torch.bool)
    mask[-1, 1] = False
    rates = RegularizationConfig(dropout=0.4, locked=True, label_smoothing=0.1, r_drop=3.0)
    torch.manual_seed(5)
    nats, extra = pair_loss(model, source, inputs, targets, mask, RUN, rates)
    torch.manual_seed(5)
    _, h = model.readings(source.repeat(1, 2), inputs.repeat(1, 2), RUN, rates)
    log_p = torch.log_softmax(model.output.logits(h, model.tied_weight), 2)
    first, second = log_p[:, :B][mask], log_p[:, B:][mask]
    smoothed = sum(
        torch.nn.functional.cross_entropy(one, targets[mask], label_smoothing=0.1) / 2
        for one in (first, second)
    )
    own = [torch.nn.functional.nll_loss(one, targets[mask]) / 2 for one in (first, second)]
    torch.testing.assert_close(nats, sum(own))
    divergence = ((first.exp() - second.exp()) * (first - second)).sum(1).mean()
    torch.testing.assert_close(nats + extra, smoothed + 3.0 / 4 * divergence)
    mine = torch.autograd.grad(nats + extra, list(model.parameters()), retain_graph=True)
    its = torch.autograd.grad(smoothed + 3.0 / 4 * divergence, list(model.parameters()))
    for a, b in zip(mine, its, strict=True):
        torch.testing.assert_close(a, b)


def test_a_bridge_leads_from_the_layer_at_the_same_distance_from_the_top() -> None:
    """Three layers of the encoder, two of the decoder; and four of these, of which the first two
    both start from the first of an encoder of three."""
    for layers, sources in ((2, (1, 2)), (4, (0, 0, 1, 2))):
        model = make(layers=layers, encoder_layers=3, attention="general")
        source, _, _ = batch()
        x = model.source_embedding(source)
        _, last = model.encoder(x, model.encoder.start(B), RUN, None)
        maps = iter(model.bridges)
        for found, k in zip(model.start(source, B).layers.layers, sources, strict=True):
            for part, value in enumerate(found):
                layer = next(maps)
                expected = torch.tanh(last.layers[k][part] @ layer.weight.T + layer.bias)
                torch.testing.assert_close(value, expected)


def test_a_bridge_from_the_mean_annotation() -> None:
    """s(0) = tanh(W_init mean of h(j)), Sennrich et al. 2017, eq. 2, of both directions."""
    model = make(cell="gru", direction="bidirectional", attention="general", bridge="mean")
    source, _, _ = batch()
    state = model.start(source, B)
    mean = sum(state.memory[:, s] for s in range(S)) / S
    for (found,), layer in zip(state.layers.layers, model.bridges, strict=True):
        torch.testing.assert_close(found, torch.tanh(mean @ layer.weight.T + layer.bias))


@pytest.mark.parametrize(
    ("config", "tables"),
    [
        ({}, 3),
        ({"shared_embedding": True}, 2),
        ({"tied": True, "shared_embedding": False}, 2),
        ({"tied": True}, 1),
    ],
    ids=str,
)
def test_embeddings_and_the_output_matrix_may_be_one(config: dict[str, Any], tables: int) -> None:
    """None of them, source and target, target and output, all three: as many tables (V, E), and
    what changes in one is changed in the other."""
    model = make(attention="general", hidden_size=4, **config)
    sizes = [tuple(p.shape) for p in model.parameters()]
    assert sizes.count((V, 4)) == tables
    source, target = model.source_embedding.weight, model.target_embedding.weight
    output = model.output.matrix(model.tied_weight)
    with torch.no_grad():
        target[5] += 1.0
    together = [torch.equal(target, other) for other in (source, output)]
    both_sides = bool(config.get("shared_embedding", tables == 1))
    assert together == [both_sides, config.get("tied", False)]


def test_a_weight_that_one_side_has_is_fixed_there() -> None:
    model = make(encoder_cell="gru", attention="general", frozen=("a_n",))
    fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert fixed == ["encoder.cells.0.a_n", "encoder.cells.1.a_n"]
    with pytest.raises(UsageError, match=r"lstm,gru has no weight 'W_hx'"):
        make(encoder_cell="gru", attention="general", frozen=("W_hx",))


def test_a_dropped_word_is_missed_on_both_sides() -> None:
    """``dropout_embedding`` leaves words out of the vocabulary: wherever one stands, its vector is
    zero, and the others are scaled."""
    model = make(attention="general", shared_embedding=True).train()
    every = torch.arange(V).unsqueeze(1)
    for side in (model.source_embedding, model.target_embedding):
        torch.manual_seed(3)
        found = side(every.repeat(1, 2), 0.5)
        kept = found.abs().sum(2) > 0
        assert torch.equal(kept[:, 0], kept[:, 1]) and 0 < int(kept[:, 0].sum()) < V
        expected = 2.0 * side(every, 0.0)[kept[:, 0]]
        torch.testing.assert_close(found[:, :1][kept[:, 0]], expected)


def test_a_locked_mask_is_one_for_all_steps() -> None:
    model = make(attention="general").train()
    source, inputs, _ = batch()
    rates = RegularizationConfig(dropout_output=0.5, locked=True)
    zero = [
        model.readings(source, inputs, RUN, replace(rates, locked=locked))[1] == 0
        for locked in (True, False)
    ]
    assert torch.equal(zero[0], zero[0][:1].expand_as(zero[0]))
    assert zero[0].any() and not zero[0].all()
    assert not torch.equal(zero[1], zero[1][:1].expand_as(zero[1]))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.bridge: 'last'.*bidirectional.*use 'linear'"):
        make(bridge="last", direction="bidirectional")
    with pytest.raises(UsageError, match=r"model\.output: .*softmax"):
        make(output="adaptive")


@pytest.mark.parametrize("look_up", ["before", "feeding", "between"])
@pytest.mark.parametrize(("layer_norm", "coverage"), [(0, 0), (1, 0), (0, 1)])
def test_attention_in_the_decoder_is_the_published_one(
    look_up: str, layer_norm: int, coverage: int
) -> None:
    """The second target step, written out; what is looked up is in the sum of W_xh y that is
    normalised. With coverage (See et al. 2017, eqs. 10 and 11) the scores see the sum of the
    weights of the step before."""
    model = make(
        cell="gru", attention="additive", look_up=look_up, layers=1, bridge="mean",
        layer_norm=bool(layer_norm), coverage=bool(coverage),
    )  # fmt: skip
    vary_gains(model)
    source, inputs, _ = batch()
    attentive = model.attentive
    assert attentive is not None
    with torch.no_grad():
        _, state = model.step(inputs[0], model.start(source, B))
        logits, _ = model.step(inputs[1], state)
        (out, h, *_), memory, keys = state.layers.layers[0], state.memory, state.keys
        earlier = model.attention_weights(source, inputs[:1])[0]  # (B, S)

        def normal(cell: torch.nn.Module, name: str, v: Tensor) -> Tensor:
            """Gates together, the candidate by itself."""
            if not layer_norm:
                return v
            parts = [(p - p.mean(1, True)) / (p.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
                     for p in v.split((12, 6), 1)]  # fmt: skip
            return torch.cat(parts, 1) * cell.norms[name].g

        def gru(cell: torch.nn.Module, read: Tensor, h: Tensor) -> Tensor:
            r_x, z_x, n_x = (normal(cell, "W_xh", read) + cell.a).chunk(3, 1)
            r_h, z_h, n_h = normal(cell, "W_hh", h @ cell.W_hh.T).chunk(3, 1)
            z = torch.sigmoid(z_x + z_h)
            n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * (n_h + cell.a_n))
            return (1 - z) * n + z * h

        def look(query: Tensor) -> Tensor:
            inner = keys + (query @ attentive.attention.W_a.T).unsqueeze(1)
            if coverage:
                inner = inner + earlier.unsqueeze(2) * attentive.attention.w_c
            inner = torch.tanh(inner)
            alpha = torch.softmax(inner @ attentive.attention.v, 1)
            return (alpha.unsqueeze(2) * memory).sum(1)

        y = model.target_embedding(inputs[1]) @ attentive.cell.W_xh.T
        if look_up == "before":
            context = look(h)
            h = gru(attentive.cell, y + context @ attentive.W_f.T, h)
        elif look_up == "feeding":
            h = gru(attentive.cell, y + out @ attentive.W_f.T, h)
            context = look(h)
        else:
            s = gru(attentive.cell, y, h)
            context = look(s)
            h = gru(attentive.second, context @ attentive.second.W_xh.T, s)
        read = torch.tanh(torch.cat([context, h], 1) @ attentive.W_c.T)
        expected = read @ model.output.W_hy.T + model.output.b
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    "config",
    [
        {"look_up": "feeding", "layer_norm": True},
        {"look_up": "before", "layers": 1, "zoneout": 0.2},
        {"look_up": "between", "transition_depth": 2, "zoneout": 0.2, "layer_norm": True},
        {"look_up": "feeding", "cell": "mingru", "layers": 1},
    ],
    ids=str,
)
def test_attentive_decoders_are_trained_alike_by_every_loop(config: dict[str, Any]) -> None:
    """With everything random on, from the same seed; and W_f alone makes a cell recurrent."""
    model = make(**{"cell": "lstm", "attention": "general", **config}).train()
    source, inputs, targets = batch()
    rates = RegularizationConfig(
        dropout=0.3, dropout_state=0.3, weight_drop=0.2 if config["look_up"] == "feeding" else 0.0
    )
    found = {}
    for engine in ("reference", "deferred", "reference without"):
        torch.manual_seed(5)
        model.zero_grad()
        used = replace(rates, dropout_state=0.0) if engine.endswith("without") else rates
        mask = torch.ones(T, B, dtype=torch.bool)
        run = Run(engine.split()[0], torch.float64)
        loss, _ = pair_loss(model, source, inputs, targets, mask, run, used)
        loss.backward()
        found[engine] = [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    for one, other in zip(found["reference"], found["deferred"], strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(found["reference"][0], found["reference without"][0])


def test_layers_that_are_run_together_lose_units_of_their_own() -> None:
    """h~, and the states of both layers, have as many units and three masks."""
    model = make(cell="gru", attention="general", look_up="feeding", hidden_size=200)
    cell = StateDropout(model.decoder.layers[0], 0.5)
    source, inputs, _ = batch()
    with torch.no_grad():
        state = model.stack_state(model.start(source, B)).layers[0]
        projected = cell.project(model.target_embedding(inputs), state, torch.float64)
        weights = {f"cell.{n}": w for n, w in model.decoder.layers[0].step_weights().items()}
        seen: dict[str, Tensor] = {}

        def product(name: str, v: Tensor) -> Tensor:
            seen[name] = v
            return v @ weights[name].T

        ones = (*(torch.ones_like(part) for part in state[:3]), *state[3:])
        cell.step(projected[0], ones, product)
    masks = [seen[f"cell.{name}"] for name in ("W_f", "cell.cells.0.W_hh", "cell.cells.1.W_hh")]
    for k, one in enumerate(masks):
        assert set(one.unique().tolist()) == {0.0, 2.0}
        assert not torch.equal(one, masks[k - 1])


def test_input_feeding_leads_from_above_the_last_layer_to_the_first() -> None:
    """Two layers, written out; what leads from the one to the other is multiplied by a mask."""
    model = make(cell="elman", attention="general", look_up="feeding", bridge="mean")
    source, inputs, _ = batch()
    attentive = model.attentive
    assert attentive is not None
    lower, upper = attentive.cell.cells
    with torch.no_grad():
        _, state = model.step(inputs[0], model.start(source, B))
        (fed, above, below, mask, *_) = state.layers.layers[0]
        assert mask.shape == (B, 0)
        for chosen in (mask, torch.tensor([0.0, 2.0, 2.0, 0.0, 2.0, 2.0]).double().expand(B, 6)):
            parts = (fed, above, below, chosen)
            logits, _ = model.step(
                inputs[1], DecoderState(State((parts,)), state.memory, state.keys)
            )
            y = model.target_embedding(inputs[1])
            read = y @ lower.W_xh.T + fed @ attentive.W_f.T + lower.a
            first = torch.tanh(read + below @ lower.W_hh.T)
            read = first * chosen if chosen.shape[1] else first
            second = torch.tanh(read @ upper.W_xh.T + upper.a + above @ upper.W_hh.T)
            alpha = torch.softmax((state.keys @ second.unsqueeze(2)).squeeze(2), 1)
            context = (alpha.unsqueeze(2) * state.memory).sum(1)
            read = torch.tanh(torch.cat([context, second], 1) @ attentive.W_c.T)
            torch.testing.assert_close(logits, read @ model.output.W_hy.T + model.output.b)


def test_layers_of_a_decoder_that_is_fed_have_dropout_between_them() -> None:
    model = make(attention="general", look_up="feeding")
    source, *_ = batch()
    rates = RegularizationConfig(dropout=0.5, dropout_input=0.0, dropout_output=0.0)
    state = model.encode(source, RUN, rates)
    mask = state.layers.layers[0][-1]
    assert sorted(mask.unique().tolist()) == [0.0, 2.0]
    with pytest.raises(UsageError, match=r"model\.residual: with look_up = 'feeding'"):
        make(attention="general", look_up="feeding", residual="add")


def test_parts_of_a_state_that_the_encoder_does_not_have_start_from_its_h() -> None:
    """A GRU's h is an LSTM's h and c to begin with, each through a layer of its own."""
    model = make(cell="lstm", encoder_cell="gru", layers=1)
    source, *_ = batch()
    with torch.no_grad():
        _, last = model.encoder(model.source_embedding(source), model.encoder.start(B), RUN, None)
        ((h,),) = last.layers
        ((first_h, first_c),) = model.start(source, B).layers.layers
        torch.testing.assert_close(first_h, torch.tanh(model.bridges[0](h)))
        torch.testing.assert_close(first_c, torch.tanh(model.bridges[1](h)))
    assert not torch.equal(first_h, first_c)


def test_options_of_cells_are_those_of_the_side_that_takes_them() -> None:
    model = make(
        cell="lstm", encoder_cell="qrnn", window=3, projection_size=4, layers=1, bridge="mean"
    )
    assert model.encoder.layers[0].window == 3
    assert [c.state_sizes for c in model.decoder.layers] == [(4, 6)]
    with pytest.raises(UsageError, match=r"model\.window: lstm,gru has no such option"):
        ModelConfig(cell="lstm", encoder_cell="gru", window=3)
    with pytest.raises(UsageError, match=r"model\.encoder_cell: unknown value 'grus'"):
        ModelConfig(encoder_cell="grus")
    with pytest.raises(UsageError, match=r"model\.encoder_cell: 'gru,lstm' names 2 cells for 3"):
        ModelConfig(encoder_cell="gru,lstm", encoder_layers=3)


def test_a_fixed_encoder_leaves_the_decoder_to_be_learned() -> None:
    fixed = {"cell": "lstm", "encoder_cell": "echo-state", "layers": 1, "init": "default"}
    model = make(**fixed, shared_embedding=False)
    assert not model.source_embedding.weight.requires_grad
    assert model.target_embedding.weight.requires_grad
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.decoder.parameters())
    assert make(**fixed, shared_embedding=True).source_embedding.weight.requires_grad


def test_the_encoder_decoder_of_cho_2014() -> None:
    """Appendix A, step after step: c in the decoder's start, its steps and its output."""
    model = make(cell="gru-cho2014", context="every-step", readout="maxout", layers=1)
    source, inputs, _ = batch()

    def unit(cell: torch.nn.Module, x: Tensor, h: Tensor) -> Tensor:
        x_r, x_z, x_n = (x @ cell.W_xh.T + cell.a).chunk(3, 1)
        h_r, h_z = (h @ cell.W_hh.T).chunk(2, 1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        return z * h + (1 - z) * torch.tanh(x_n + (r * h) @ cell.U.T)

    with torch.no_grad():
        h = torch.zeros(B, 6, dtype=torch.float64)
        for x in model.source_embedding(source):
            h = unit(model.encoder.layers[0], x, h)
        c = torch.tanh(h @ model.V.T)
        h = torch.tanh(model.bridges[0](c))
        cell = model.decoder.layers[0]
        for tokens in inputs:
            y = model.target_embedding(tokens)
            parts = zip(*((v.chunk(3, 1)) for v in (
                y @ cell.W_xh.T + cell.a, h @ cell.W_hh.T, c @ cell.C.T,
            )), strict=True)  # fmt: skip
            of_r, of_z, (n_y, n_h, n_c) = parts
            r, z = torch.sigmoid(sum(of_r)), torch.sigmoid(sum(of_z))
            h = z * h + (1 - z) * torch.tanh(n_y + r * (n_h + n_c))
        both = torch.cat([c, h, y], 1) @ model.W_c.T
        s = torch.maximum(both[:, 0::2], both[:, 1::2])
        expected = s @ model.output.W_hy.T + model.output.b
        state = model.start(source, B)
        for tokens in inputs:
            logits, state = model.step(tokens, state)
    torch.testing.assert_close(logits, expected)


def test_cells_whose_output_is_not_their_state_look_up_afterwards() -> None:
    for cell in ("sru", "dots-rnn"):
        with pytest.raises(UsageError, match=r"model\.look_up: .*output is another one"):
            make(cell=cell, attention="general", look_up="feeding", layers=1)
        make(cell=cell, attention="general", layers=1)


@pytest.mark.parametrize("cell", CELLS)
def test_any_cell_on_both_sides(cell: str) -> None:
    """The bridge leaves alone what is kept of the input and what normalises a cell."""
    for more in ({"attention": "general"}, {"context": "every-step"}):
        model = make(cell=cell, direction="bidirectional", **more)
        source, inputs, targets = batch()
        mask = torch.ones(T, B, dtype=torch.bool)
        nats, _ = pair_loss(
            model.train(), source, inputs, targets, mask, RUN, RegularizationConfig()
        )
        nats.backward()
        assert torch.isfinite(nats)
        logits, _ = model.eval().step(inputs[0], model.start(source, B))
        assert logits.shape == (B, V) and logits.isfinite().all()
        unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not unused


def test_what_is_fixed_or_dropped_is_so_on_both_sides() -> None:
    model = make(frozen=("embedding",))
    assert not any(e.weight.requires_grad for e in (model.source_embedding, model.target_embedding))
    learned = make(initial_state="learned", attention="general")
    assert learned.encoder.initial is not None and learned.decoder.initial is None
    between = make(cell="gru", attention="general", look_up="between", layers=1)
    assert between.attentive is not None
    assert {"cell.W_hh", "second.W_hh"} <= set(between.attentive.recurrent_weights())


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_a_beam_shares_the_annotations_of_its_source(config: dict[str, Any]) -> None:
    """Rows regrouped, which keep annotations once a source, go on as rows selected do."""
    model = make(**config)
    source, inputs, _ = batch()
    with torch.no_grad():
        _, state = model.step(inputs[0], model.start(source, B))
        grouped = state.regroup(torch.tensor([0, 0, 1, 1, 2, 2]), None)
        plain = state.select(torch.tensor([0, 0, 1, 1, 2, 2]))
        tokens = torch.tensor([1, 2, 3, 4, 5, 6])
        steps: tuple[tuple[list[int], list[int] | None], ...] = (
            ([1, 0, 2, 3, 5, 5], None),
            ([3, 2, 4, 5], [1, 2]),
            ([3, 3, 2], [1]),
        )
        for rows, sources in steps:
            mine, grouped = model.step(tokens, grouped)
            whole, plain = model.step(tokens, plain)
            torch.testing.assert_close(mine, whole)
            index = torch.tensor(rows)
            grouped = grouped.regroup(index, None if sources is None else torch.tensor(sources))
            plain, tokens = plain.select(index), tokens[index].flip(0)
        assert len(grouped.memory) == 1 and len(plain.memory) == 3
        torch.testing.assert_close(model.step(tokens, grouped)[0], model.step(tokens, plain)[0])
