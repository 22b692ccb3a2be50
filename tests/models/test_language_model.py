"""The language model: one network however it is run, and a loss of exactly its tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.cell_table import CELLS
from rnncli.models.language_model import LanguageModel
from rnncli.nn.stack import Run
from rnncli.nn.state import State
from rnncli.sections import ModelConfig, RegularizationConfig

V, T, B = 9, 6, 4
RUN = Run("auto", torch.float64)
NONE = RegularizationConfig()


def make(seed: int = 0, **config: Any) -> LanguageModel:
    sizes = {"hidden_size": 8, "embedding_size": 5}
    model = LanguageModel(ModelConfig(**{**sizes, **config}), V).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def text(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs and targets, (T, B) each."""
    tokens = torch.randint(V, (T + 1, B), generator=torch.Generator().manual_seed(seed))
    return tokens[:-1], tokens[1:]


def gradients(model: LanguageModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


SHAPES = [{}, {"input": "one-hot"}, {"tied": True}, {"initial_state": "learned"}]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("more", [*SHAPES, {"output": "adaptive"}], ids=str)
def test_steps_give_the_log_probabilities_of_the_whole_run(cell: str, more: dict[str, Any]) -> None:
    if cell == "slstm" and "initial_state" in more:
        pytest.skip("its start cannot be learned")
    model = make(cell=cell, **more)
    inputs, targets = text()
    nats, last = model.nats(inputs, targets, model.start(None, B), RUN)
    state = model.start(None, B)
    for t in range(T):
        logits, state = model.step(inputs[t], state)
        log_p = torch.log_softmax(logits, 1)
        close(nats[t], -log_p.gather(1, targets[t].unsqueeze(1)).squeeze(1))
    for a, b in zip(state.tensors(), last.tensors(), strict=True):
        close(a, b)


@pytest.mark.parametrize("more", [*SHAPES, {"output": "adaptive"}], ids=str)
def test_the_training_loss_is_the_mean_of_the_nats(more: dict[str, Any]) -> None:
    model = make(**more)
    inputs, targets = text()
    loss, penalty, state = model.training_loss(
        inputs, targets, model.start(None, B), None, RUN, NONE
    )
    nats, last = model.nats(inputs, targets, model.start(None, B), RUN)
    torch.testing.assert_close(loss, nats.mean(), rtol=1e-6, atol=0)
    assert float(penalty) == 0.0
    for a, b in zip(state.tensors(), last.tensors(), strict=True):
        close(a, b)
    found, expected = gradients(model, loss), gradients(model, nats.mean())
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing(cell: str) -> None:
    """Lines of unequal length side by side: whatever stands in the padding, loss, penalties and
    gradients stay; and the loss is that of the lines one by one."""
    model = make(cell=cell)
    rates = RegularizationConfig(activation_penalty=2.0, temporal_activation_penalty=1.0)
    lengths = torch.tensor([6, 3, 1, 4])
    mask = torch.arange(T).unsqueeze(1) < lengths
    results = []
    for padding in (0, 7):
        inputs, targets = (t.masked_fill(~mask, padding) for t in text())
        loss, penalty, _ = model.training_loss(
            inputs, targets, model.start(None, B), mask, RUN, rates
        )
        results.append((loss, penalty, gradients(model, loss + penalty)))
    (loss, penalty, found), (loss_2, penalty_2, found_2) = results
    close(loss, loss_2)
    close(penalty, penalty_2)
    assert float(penalty.detach()) > 0
    for name, gradient in found.items():
        close(gradient, found_2[name])
    inputs, targets = text()
    alone = [
        model.nats(inputs[:n, k : k + 1], targets[:n, k : k + 1], model.start(None, 1), RUN)[0]
        for k, n in enumerate(lengths.tolist())
    ]
    torch.testing.assert_close(loss, torch.cat(alone).mean(), rtol=1e-6, atol=0)


def test_nothing_but_padding_costs_nothing() -> None:
    rates = RegularizationConfig(activation_penalty=2.0, temporal_activation_penalty=1.0)
    inputs, targets = text()
    model = make()
    loss, penalty, _ = model.training_loss(
        inputs, targets, model.start(None, B), torch.zeros(T, B, dtype=torch.bool), RUN, rates
    )
    assert float(loss.detach()) == float(penalty.detach()) == 0.0
    assert all(not g.any() for g in gradients(model, loss + penalty).values())


def test_the_order_of_a_batch_changes_nothing() -> None:
    model, (inputs, targets) = make(), text()
    order = torch.tensor([3, 1, 0, 2])
    nats, last = model.nats(inputs, targets, model.start(None, B), RUN)
    permuted, last_permuted = model.nats(
        inputs[:, order], targets[:, order], model.start(None, B), RUN
    )
    close(permuted, nats[:, order])
    for a, b in zip(last_permuted.tensors(), last.select(order).tensors(), strict=True):
        close(a, b)


def test_one_hot_is_an_embedding_of_the_identity_bit_for_bit() -> None:
    one_hot = make(input="one-hot").float()
    embedded = make(embedding_size=V).float()
    weights = one_hot.state_dict() | {"embedding.weight": torch.eye(V)}
    embedded.load_state_dict(weights)
    inputs, targets = text()
    mine, theirs = (
        m.nats(inputs, targets, m.start(None, B), Run())[0] for m in (one_hot, embedded)
    )
    assert torch.equal(mine, theirs)


def test_tied_weights_are_one_and_get_both_gradients() -> None:
    tied = make(tied=True, layers=1)
    assert tied.output.W_hy is None
    assert tied.output.matrix(tied.tied_weight) is tied.embedding.weight
    names = [name for name, _ in tied.named_parameters()]
    assert names.count("embedding.weight") == 1 and "output.W_hy" not in names

    apart = make(layers=1, hidden_size=5)
    apart.load_state_dict(
        tied.state_dict() | {"output.W_hy": tied.embedding.weight.detach()}, strict=True
    )
    inputs, targets = text()
    found, expected = (
        gradients(m, m.training_loss(inputs, targets, m.start(None, B), None, RUN, NONE)[0])
        for m in (tied, apart)
    )
    as_input, as_output = expected["embedding.weight"], expected["output.W_hy"]
    assert as_input.abs().max() > 1e-4 and as_output.abs().max() > 1e-4
    close(found["embedding.weight"], as_input + as_output)


def test_activation_penalties_are_those_of_merity() -> None:
    """alpha times the mean square of h(t), beta that of h(t) - h(t-1) (sec. 4.6)."""
    model, (inputs, targets) = make(), text()
    h, _ = model.hidden(inputs, model.start(None, B), RUN)
    rates = RegularizationConfig(activation_penalty=2.0, temporal_activation_penalty=3.0)
    _, penalty, _ = model.training_loss(inputs, targets, model.start(None, B), None, RUN, rates)
    expected = 2.0 * h.pow(2).mean() + 3.0 * (h[1:] - h[:-1]).pow(2).mean()
    torch.testing.assert_close(penalty.double(), expected, rtol=1e-5, atol=0)
    _, single, _ = model.training_loss(
        inputs[:1], targets[:1], model.start(None, B), None, RUN, rates
    )
    torch.testing.assert_close(single.double(), 2.0 * h[0].pow(2).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("padded", [False, True])
def test_two_passes_are_to_agree(padded: bool) -> None:
    """R-Drop (Liang et al. 2021) beside its formula: the passes stand beside each other, each with
    a state and dropout of its own."""
    model, (inputs, targets) = make(), text()
    mask = torch.arange(T).unsqueeze(1) < torch.tensor([6, 3, 1, 4]) if padded else None
    counted = torch.ones(T, B, dtype=torch.bool) if mask is None else mask
    rates = RegularizationConfig(dropout=0.4, activation_penalty=2.0, r_drop=3.0)
    start = model.start(None, 2 * B)
    torch.manual_seed(5)
    nats, extra, after = model.training_loss(inputs, targets, start, mask, RUN, rates)
    torch.manual_seed(5)
    h, state = model.hidden(inputs.repeat(1, 2), start, RUN, rates)
    log_p = torch.log_softmax(model.output.logits(h, None), 2)
    passes = [log_p[:, :B][counted], log_p[:, B:][counted]]
    own = sum(torch.nn.functional.nll_loss(one, targets[counted]) / 2 for one in passes)
    close(nats, own)
    divergence = ((passes[0].exp() - passes[1].exp()) * (passes[0] - passes[1])).sum(1).mean()
    squares = h[counted.repeat(1, 2)].pow(2).mean()
    expected = own + 3.0 / 4 * divergence + 2.0 * squares
    torch.testing.assert_close(nats + extra, expected, rtol=1e-6, atol=0)
    its = gradients(model, expected)
    for name, gradient in gradients(
        model, sum(model.training_loss(inputs, targets, start, mask, RUN, reseeded(rates))[:2])
    ).items():
        torch.testing.assert_close(gradient, its[name], rtol=1e-5, atol=1e-7)
    for mine, other in zip(after.tensors(), state.tensors(), strict=True):
        close(mine, other)
    assert not torch.allclose(log_p[:, :B], log_p[:, B:])


def reseeded(rates: RegularizationConfig) -> RegularizationConfig:
    torch.manual_seed(5)
    return rates


def ones(model: LanguageModel) -> State:
    return State(tuple(tuple(s + 1 for s in layer) for layer in model.start(None, B).layers))


@pytest.mark.parametrize(
    "rates",
    [
        {"dropout": 0.5},
        {"dropout_input": 0.5},
        {"dropout_output": 0.5},
        {"dropout_embedding": 0.5},
        {"weight_drop": 0.5},
        {"dropout_state": 0.5},
        {"dropout": 0.5, "locked": True},
    ],
    ids=str,
)
def test_each_dropout_is_random_in_training_and_absent_in_evaluation(rates: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = make(layers=1), text()
    regularization = RegularizationConfig(**rates)

    def loss(regularization: RegularizationConfig) -> float:
        return float(
            model.training_loss(inputs, targets, ones(model), None, RUN, regularization)[0].detach()
        )

    plain = model.nats(inputs, targets, ones(model), RUN)[0].mean().detach()
    assert loss(NONE) == pytest.approx(float(plain), rel=1e-6)
    assert len({loss(regularization) for _ in range(4)} | {float(plain)}) == 5
    before = torch.get_rng_state()
    again = model.nats(inputs, targets, ones(model), RUN)[0].mean().detach()
    assert torch.equal(again, plain) and torch.equal(torch.get_rng_state(), before)


def test_rates_of_input_and_output_default_to_the_common_one() -> None:
    rates = RegularizationConfig(dropout=0.4, dropout_output=0.0)
    assert (rates.input_rate, rates.output_rate) == (0.4, 0.0)


@pytest.mark.parametrize("cell", CELLS)
def test_the_smallest_model_learns_a_cycle(cell: str) -> None:
    """a b c a b c ...: after some steps of Adam it is nearly certain of the next token. So few
    sigmoids in many layers may not be."""
    torch.manual_seed(0)
    f = {"nonlinearity": "tanh"} if "nonlinearity" in CELLS[cell].options else {}
    model = LanguageModel(
        ModelConfig(cell=cell, layers=1, hidden_size=8, embedding_size=4, **f), vocab_size=3
    )
    tokens = (torch.arange(13) % 3).unsqueeze(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(120):
        loss, _, _ = model.training_loss(
            tokens[:-1], tokens[1:], model.start(None, 1), None, Run(), NONE
        )
        if float(loss.detach()) < 0.1:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"the loss is still {float(loss.detach()):.3f}")
