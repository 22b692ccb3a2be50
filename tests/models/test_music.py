"""The model of music: its loss by hand, padding and order, steps, truncation, what it refuses."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnncli.decoding.music_ensemble import MusicEnsemble
from rnncli.errors import UsageError
from rnncli.models.music import MusicModel
from rnncli.nn.keys import NadeOutput, draw, frame_nats
from rnncli.nn.stack import Run
from rnncli.sections import ModelConfig, RegularizationConfig

K = 7
RUN, NONE = Run("reference", torch.float64), RegularizationConfig()
INPUTS: list[dict[str, Any]] = [
    {"input": "one-hot"},
    {"input": "embedding", "embedding_size": 4, "embedding_scale": 2.0},
    {"input": "embedding", "embedding_size": 5, "tied": True},
]


def make(seed: int = 0, **config: Any) -> MusicModel:
    torch.manual_seed(seed)
    values = {"cell": "gru", "layers": 2, "hidden_size": 6, "init": "uniform", "init_scale": 0.7}
    return MusicModel(ModelConfig(**{**values, **config}), K).double()


def frames(T: int, B: int = 1, seed: int = 1) -> Tensor:
    """(T + 1, B, K), silence first."""
    rng = np.random.default_rng(seed)
    both = torch.from_numpy(rng.random((T + 1, B, K)) < 0.4).double()
    both[0] = 0
    return both


def loss(model: MusicModel, both: Tensor, mask: Tensor | None = None) -> float:
    T, B = both.shape[0] - 1, both.shape[1]
    mask = torch.ones(T, B, dtype=torch.bool) if mask is None else mask
    nats, _, _ = model.training_loss(both[:-1], both[1:], model.start(None, B), mask, RUN, NONE)
    return float(nats.detach())


@pytest.mark.parametrize("config", INPUTS, ids=str)
def test_the_loss_is_the_sum_of_the_keys_cross_entropies(config: dict[str, Any]) -> None:
    """Frame by frame through the step contract, with torch's loss and with logarithms."""
    model, both = make(**config), frames(5)
    state, by_torch, by_hand = model.start(None, 1), 0.0, 0.0
    for before, after in itertools.pairwise(both):
        logits, state = model.step(before, state)
        by_torch += float(torch.nn.BCEWithLogitsLoss(reduction="sum")(logits, after).detach())
        for z, y in zip(logits[0].tolist(), after[0].tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            by_hand -= math.log(p if y else 1 - p)
    assert loss(model, both) == pytest.approx(by_torch / 5, rel=1e-12)
    assert loss(model, both) == pytest.approx(by_hand / 5, rel=1e-12)
    logits, last = model.logits(both[:-1], both[1:], model.start(None, 1), RUN)
    assert float(frame_nats(logits, both[1:]).sum().detach()) == pytest.approx(by_torch, rel=1e-12)
    for a, b in zip(last.tensors(), state.tensors(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("output", ["softmax", "nade"])
def test_two_passes_are_to_agree(output: str) -> None:
    """R-Drop for keys that sound or not, with the divergence of two Bernoulli distributions summed
    over both values of each key, those below it as in the frame."""
    model, both = make(output=output), frames(5, 3)
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[3:, 1] = False
    rates = RegularizationConfig(dropout=0.4, dropout_input=0.0, dropout_output=0.0, r_drop=3.0)
    start = model.start(None, 6)
    torch.manual_seed(5)
    nats, extra, _ = model.training_loss(both[:-1], both[1:], start, mask, RUN, rates)
    torch.manual_seed(5)
    twice = both.repeat(1, 2, 1)
    h, _ = model.stack(model.input(twice[:-1], 0.0, RUN.dtype), start, RUN, rates)
    logits = model.output.logits(model.output.read(h, None, RUN.dtype), twice[1:])
    first, second = (torch.sigmoid(logits[:, part])[mask] for part in (slice(3), slice(3, 6)))
    played = both[1:][mask]
    own = sum(
        torch.nn.functional.binary_cross_entropy(p, played, reduction="none").sum(1).mean() / 2
        for p in (first, second)
    )
    torch.testing.assert_close(nats, own)
    divergence = sum(
        (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
        for p, q in ((first, second), (second, first))
    )
    torch.testing.assert_close(nats + extra, own + 3.0 / 4 * divergence)
    assert float(divergence.detach()) > 1e-3
    mine = torch.autograd.grad(nats + extra, list(model.parameters()), retain_graph=True)
    its = torch.autograd.grad(own + 3.0 / 4 * divergence, list(model.parameters()))
    for a, b in zip(mine, its, strict=True):
        torch.testing.assert_close(a, b)


def nade() -> tuple[NadeOutput, Tensor, Tensor]:
    """An output layer, h (N, H) and frames (N, K): silent, full, and others."""
    output = make(output="nade", nade_size=3).output
    assert isinstance(output, NadeOutput)
    generator = torch.Generator().manual_seed(4)
    for weight in output.parameters():
        weight.data.normal_(generator=generator)
    h = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    both = (torch.rand(6, K, generator=generator) < 0.4).double()
    both[0], both[1] = 0.0, 1.0
    return output, h, both


def test_nade_is_its_papers_loop() -> None:
    """Larochelle and Murray 2011, alg. 1, with the biases of Boulanger-Lewandowski et al. 2012."""
    output, h, both = nade()
    found = output.logits(output.read(h, None, torch.float64), both)
    for row in range(len(h)):
        b = output.W_hy @ h[row] + output.b
        a = output.W_hc @ h[row] + output.c
        for k in range(K):
            torch.testing.assert_close(found[row, k], b[k] + output.V[k] @ torch.sigmoid(a))
            a = a + output.W[k] * both[row, k]


def test_nade_gives_all_frames_together_the_probability_one() -> None:
    output, h, _ = nade()
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=K)), dtype=torch.float64)
    read = output.read(h, None, torch.float64).unsqueeze(1).expand(-1, len(every), -1)
    each = every.expand(len(h), -1, -1)
    nats = frame_nats(output.logits(read, each), each)
    torch.testing.assert_close(torch.exp(-nats).sum(1), torch.ones(6, dtype=torch.float64))


def test_nade_s_gradients_are_those_of_finite_differences() -> None:
    output, h, both = nade()
    weights = dict(output.named_parameters())

    def nats(h: Tensor, *values: Tensor) -> Tensor:
        with torch.nn.utils.stateless._reparametrize_module(
            output, dict(zip(weights, values, strict=True))
        ):
            return frame_nats(output.logits(output.read(h, None, torch.float64), both), both)

    assert torch.autograd.gradcheck(nats, (h.requires_grad_(), *weights.values()))


def test_nade_chooses_each_key_by_those_below_it() -> None:
    """What is drawn has the logits that the same frame has when it is given."""
    output, h, _ = nade()
    read = output.read(h, None, torch.float64)
    u = torch.rand(6, K, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    drawn, logits = draw([output.walk(read)], lambda keys, z: u[:, keys] < torch.sigmoid(z))
    torch.testing.assert_close(logits, output.logits(read, drawn.double()))
    assert torch.equal(drawn, u < torch.sigmoid(logits))


@pytest.mark.parametrize("output", ["softmax", "nade"])
def test_an_ensemble_is_the_mean_of_the_chances_of_each_key(output: str) -> None:
    """Step by step and over the whole piece; what it draws has the logits of what it was."""
    models = [make(seed, output=output) for seed in (1, 2, 3)]
    ensemble, both = MusicEnsemble(models), frames(5, 2)
    with torch.no_grad():
        start = [model.start(None, 2) for model in models]
        each = [
            torch.sigmoid(model.logits(both[:-1], both[1:], state, RUN)[0])
            for model, state in zip(models, start, strict=True)
        ]
        found, _ = ensemble.logits(both[:-1], both[1:], ensemble.start(None, 2), RUN)
        torch.testing.assert_close(torch.sigmoid(found), sum(each) / 3)
        state, u = ensemble.start(None, 2), torch.rand(2, K, dtype=torch.float64)
        frame = torch.zeros(2, K, dtype=torch.float64)
        read, after = ensemble.step(frame, state)
        drawn, logits = ensemble.draw(read, lambda keys, z: u[:, keys] < torch.sigmoid(z))
        again, _ = ensemble.logits(frame.unsqueeze(0), drawn.double().unsqueeze(0), state, RUN)
        torch.testing.assert_close(logits, again[0])
        ensemble.step(drawn.double(), after.select(torch.tensor([1, 0])))
    with pytest.raises(UsageError, match="needs models of one kind"):
        MusicEnsemble([make(), make(output="nade")])


def test_an_embedding_is_the_sum_of_the_vectors_of_the_keys() -> None:
    model = make(**INPUTS[1])
    frame = torch.tensor([0.0, 1, 0, 0, 1, 0, 0], dtype=torch.float64)
    weight = model.input.weight
    assert weight is not None
    x = model.input(frame, 0.0, torch.float64)
    torch.testing.assert_close(x, 2.0 * (weight[1] + weight[4]))
    assert model.input(torch.zeros_like(frame), 0.0, torch.float64).abs().sum() == 0


def test_padding_and_order_change_nothing() -> None:
    model = make()
    long, short = frames(6), frames(3, seed=2)
    apart = (6 * loss(model, long) + 3 * loss(model, short)) / 9
    for columns, lengths in (((long, short), (6, 3)), ((short, long), (3, 6))):
        both = torch.ones(7, 2, K, dtype=torch.float64)  # what stands in the padding is not read
        mask = torch.zeros(6, 2, dtype=torch.bool)
        for column, (piece, length) in enumerate(zip(columns, lengths, strict=True)):
            both[: length + 1, column] = piece[:, 0]
            mask[:length, column] = True
        assert loss(model, both, mask) == pytest.approx(apart, rel=1e-12)


def test_earlier_frames_matter_and_later_ones_do_not() -> None:
    model, both = make(), frames(6)
    logits, _ = model.logits(both[:-1], both[1:], model.start(None, 1), RUN)
    changed = both.clone()
    changed[3] = 1 - changed[3]
    others, _ = model.logits(changed[:-1], both[1:], model.start(None, 1), RUN)
    assert torch.equal(logits[:3], others[:3])
    assert not torch.isclose(logits[3:], others[3:]).all(dim=2).any()


def test_parts_with_their_state_handed_on_are_the_whole() -> None:
    model, both = make(initial_state="learned"), frames(7, B=2)
    whole = loss(model, both) * 14
    state, parts = model.start(None, 2), 0.0
    for cut in (slice(0, 3), slice(3, 7)):
        T = cut.stop - cut.start
        mask = torch.ones(T, 2, dtype=torch.bool)
        nats, _, state = model.training_loss(both[:-1][cut], both[1:][cut], state, mask, RUN, NONE)
        parts += float(nats.detach()) * 2 * T
    assert parts == pytest.approx(whole, rel=1e-12)


def test_the_untrained_output_knows_how_often_keys_sound() -> None:
    model = make(hidden_size=3)
    counts = torch.tensor([0, 1, 5, 10, 20, 39, 40])
    model.output.start_from(counts, 40)
    p = torch.sigmoid(model.output.b.detach())
    torch.testing.assert_close(p, ((counts + 0.1) / 40.2).double())


@pytest.mark.parametrize(
    "rates",
    [
        {"dropout": 0.4}, {"dropout": 0.4, "locked": True}, {"dropout_input": 0.5},
        {"dropout_output": 0.5}, {"dropout_embedding": 0.5}, {"weight_drop": 0.5},
        {"dropout_state": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_dropout_does_something(rates: dict[str, Any]) -> None:
    model, both = make(input="one-hot"), frames(5, B=2)
    mask = torch.ones(5, 2, dtype=torch.bool)

    def nats(rates: RegularizationConfig) -> float:
        start = model.start(None, 2)
        return float(model.training_loss(both[:-1], both[1:], start, mask, RUN, rates)[0].detach())

    found = {nats(RegularizationConfig(**rates)) for _ in range(8)}
    assert len(found) > 1 and nats(NONE) == nats(NONE)


def test_activation_penalties_are_added() -> None:
    model, both = make(), frames(4)
    mask = torch.ones(4, 1, dtype=torch.bool)
    rates = RegularizationConfig(activation_penalty=2.0)
    start = model.start(None, 1)
    _, penalty, _ = model.training_loss(both[:-1], both[1:], start, mask, RUN, rates)
    h, _ = model.stack(model.input(both[:-1], 0.0, torch.float64), start, RUN, None)
    assert float(penalty.detach()) == pytest.approx(2 * float(h.detach().pow(2).mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"tied": True, "cell": "lstm", "direction": "bidirectional"},
            "model.tied: the layers give",
        ),
        ({"output": "adaptive"}, "model.output: 'adaptive' is for words"),
    ],
)
def test_what_music_cannot_have(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(**config)
