"""Clipping, penalties, noise and averages, by numbers."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from rnncli.errors import UsageError
from rnncli.models.language_model import LanguageModel
from rnncli.sections import OPTIMIZERS, ModelConfig, OptimizerConfig, RegularizationConfig
from rnncli.training.optimizers import (
    Averaging,
    Optimizer,
    WeightNoise,
    WeightPenalty,
    clip,
    gradient_norm,
)


def gradients() -> list[torch.Tensor]:
    return [torch.tensor([[3.0, 0.0], [0.0, -4.0]]), torch.tensor([12.0])]


def test_clipping_by_norm():
    found = gradients()
    norm = gradient_norm(found)
    assert norm == 13.0
    clip(found, norm, OptimizerConfig(clip_norm=6.5))
    assert [g.tolist() for g in found] == [[[1.5, 0.0], [0.0, -2.0]], [6.0]]
    clip(found, 6.5, OptimizerConfig(clip_norm=6.5))
    assert found[1].item() == 6.0
    clip(found, 6.5, OptimizerConfig(clip_norm=0.0))
    assert found[1].item() == 6.0


def test_clipping_by_value():
    found = gradients()
    clip(found, 13.0, OptimizerConfig(clip_norm=0.0, clip_value=3.5))
    assert [g.tolist() for g in found] == [[[3.0, 0.0], [0.0, -3.5]], [3.5]]


def model(cell: str = "lstm") -> LanguageModel:
    torch.manual_seed(3)
    return LanguageModel(ModelConfig(cell=cell, layers=2, hidden_size=4, embedding_size=3), 7)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "gru-cho2014"])
def test_penalties_on_weights(cell):
    """Against autograd of the formula; recurrent weights carry both, vectors none."""
    rates = RegularizationConfig(l1=0.1, l2=0.2, recurrent_l1=0.3, recurrent_l2=0.4)
    network = model(cell)
    recurrent = {
        id(w)
        for layer in network.stack.cells
        for w in layer.parameters()
        if w.dim() > 1 and w.shape[1] == 4 and w.shape[0] % 4 == 0
    }
    # What reads the layer below has as many columns in the second layer: told apart by name.
    first = network.stack.cells[0]
    names = {n for n, w in first.named_parameters() if id(w) in recurrent}
    total = torch.zeros(())
    for name, weight in network.named_parameters():
        weight.grad = torch.full_like(weight, 0.5)
        if weight.dim() > 1:
            ours = "cells" in name and name.rpartition(".")[2] in names
            total = total + (0.1 + 0.3 * ours) * weight.abs().sum()
            total = total + (0.2 + 0.4 * ours) * weight.pow(2).sum()
    matrices = [w for w in network.parameters() if w.dim() > 1]
    expected = torch.autograd.grad(total, matrices)
    WeightPenalty(rates, network).add_gradients()
    assert names
    for weight, gradient in zip(matrices, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient + 0.5)
    for weight in network.parameters():
        if weight.dim() <= 1:
            assert bool((weight.grad == 0.5).all())


@pytest.mark.parametrize("name", ["recurrent_l1", "recurrent_l2"])
def test_a_penalty_on_matrices_that_are_not_learned_is_refused(name):
    rates = RegularizationConfig(**{name: 0.1})
    with pytest.raises(UsageError, match=rf"regularization\.{name}: no recurrent matrix"):
        WeightPenalty(rates, model("echo-state"))
    WeightPenalty(RegularizationConfig(l1=0.1, l2=0.1), model("echo-state"))
    assert WeightPenalty(rates, model("elman")).terms


def test_noise_is_taken_back_exactly():
    network = model()
    before = [w.detach().clone() for w in network.parameters()]
    noise = WeightNoise(0.5, network)
    noise.add()
    change = torch.cat(
        [
            (w.detach() - b).reshape(-1)
            for w, b in zip(network.parameters(), before, strict=True)
            if w.dim() > 1
        ]
    )
    assert change.std() == pytest.approx(0.5, rel=0.1)
    assert abs(change.mean()) < 0.1
    noise.remove()
    assert all(torch.equal(w, b) for w, b in zip(network.parameters(), before, strict=True))


def weights(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        for w in layer.parameters():
            w.fill_(value)
    return layer


def set_to(layer: nn.Linear, value: float) -> None:
    with torch.no_grad():
        for w in layer.parameters():
            w.fill_(value)


@pytest.mark.parametrize(
    ("scores", "window", "trigger"),
    [
        # Worse than the best but for the last two (Merity et al. 2017; n = 2).
        ([5, 4, 3, 2, 1, 0], 2, None),
        ([5, 4, 6, 7, 8, 3], 2, 4),  # 7 is compared with 5 alone
        ([5, 6], 2, None),
        ([5, 6, 7], 2, None),  # two logs before the third: none is old enough
        ([5, 1, 1, 1.5], 2, None),
        ([5, 1, 1, 1.5, 1.2], 2, 5),
        ([5, 4, 4.5, 4.4, 4.3], 1, 4),
        ([2, 2, 2, 2, 2, 2], 1, None),  # as good is not worse
    ],
)
def test_trigger_of_nt(scores, window, trigger):
    averaging = Averaging(OptimizerConfig(averaging="nt", averaging_window=window), weights(0.0))
    found = None
    for t, score in enumerate(scores):
        # The released program: t > n and v > min(logs[:-n]).
        expected = t > window and score > min(scores[: t - window])
        averaging.validated(float(score))
        if averaging.active:
            found = t + 1
            assert expected
            break
        assert not expected
    assert found == trigger


def test_average_of_nt_is_the_mean_since_the_trigger():
    layer = weights(9.0)
    averaging = Averaging(OptimizerConfig(averaging="nt", averaging_window=1), layer)
    averaging.update()
    for score in (1.0, 2.0, 3.0):
        averaging.validated(score)
    assert averaging.active
    for value in (1.0, 2.0, 6.0):
        set_to(layer, value)
        averaging.update()
    averaging.swap()
    assert layer.weight.item() == pytest.approx(3.0)
    averaging.swap()
    assert layer.weight.item() == 6.0
    assert [s.item() for s in averaging.shadow] == pytest.approx([3.0, 3.0])


def test_moving_average():
    """The decay rises to 0.9: 1/11, 2/12, 3/13, ..."""
    layer = weights(1.0)
    averaging = Averaging(OptimizerConfig(averaging="ema", ema_decay=0.3), layer)
    expected = 1.0
    for step, value in enumerate((4.0, -2.0, 3.0, 5.0, 7.0, 1.0), 1):
        set_to(layer, value)
        averaging.update()
        decay = min(0.3, step / (step + 10))
        expected = decay * expected + (1 - decay) * value
        assert averaging.shadow[0].item() == pytest.approx(expected, rel=1e-6)


def quadratic(layer: nn.Linear, optimizer: Optimizer, steps: int) -> float:
    for _ in range(steps):
        optimizer.zero_grad()
        (layer.weight - 2.0).pow(2).sum().backward()
        optimizer.step()
    return layer.weight.item()


def torchs(config: OptimizerConfig, layer: nn.Module) -> torch.optim.Optimizer:
    """torch's optimiser for the same rule."""
    weights, lr, decay = list(layer.parameters()), config.lr, config.weight_decay
    betas = (config.beta1, config.beta2)
    if config.name == "sgd":
        return torch.optim.SGD(weights, lr, momentum=config.momentum, weight_decay=decay)
    if config.name == "adam":
        return torch.optim.Adam(weights, lr, betas, config.eps, weight_decay=decay)
    if config.name == "adamw":
        groups = [
            {"params": [w for w in weights if w.dim() > 1], "weight_decay": decay},
            {"params": [w for w in weights if w.dim() == 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr, betas, config.eps)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            weights, lr, config.rho, config.eps, weight_decay=decay, momentum=config.momentum
        )
    if config.name == "adadelta":
        return torch.optim.Adadelta(weights, lr, config.rho, config.eps, weight_decay=decay)
    return torch.optim.Adagrad(weights, lr, weight_decay=decay, eps=config.eps)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rules_are_torchs(name, decay, momentum):
    config = OptimizerConfig(
        name=name, lr=0.05, momentum=momentum, weight_decay=decay, beta2=0.98, rho=0.9, eps=1e-6
    )
    torch.manual_seed(0)
    mine, its = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    its.load_state_dict(mine.state_dict())
    ours, theirs = Optimizer(config, mine), torchs(config, its)
    for step in range(7):
        ours.lr = 0.05 / (step + 1)
        for group in theirs.param_groups:
            group["lr"] = ours.lr
        x = torch.randn(4, 5, dtype=torch.float64)
        for layer, optimizer in ((mine, ours), (its, theirs)):
            optimizer.zero_grad()
            layer(x).sin().sum().backward()
            if step == 3:  # a parameter that nothing depends on this time stays where it is
                layer.bias.grad = None
            optimizer.step()
        for a, b in zip(mine.parameters(), its.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_making_an_optimizer_and_using_it_does_not_import_torchs_compiler():
    code = (
        "import sys, torch\n"
        "from rnncli.sections import OptimizerConfig\n"
        "from rnncli.training.optimizers import Optimizer\n"
        "layer = torch.nn.Linear(2, 2)\n"
        "layer(torch.ones(1, 2)).sum().backward()\n"
        "Optimizer(OptimizerConfig(), layer).step()\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_restored(name):
    config = OptimizerConfig(name=name, lr=0.05, momentum=0.9, weight_decay=0.01)
    layer, copy = weights(0.5), weights(0.0)
    optimizer = Optimizer(config, layer)
    assert abs(quadratic(layer, optimizer, 5) - 2.0) < 1.5
    state = {key: tensor.clone() for key, tensor in optimizer.tensors().items()}
    assert state
    set_to(copy, layer.weight.item())
    other = Optimizer(config, copy)
    other.restore(state)
    assert quadratic(copy, other, 5) == quadratic(layer, optimizer, 5)
    fresh = weights(layer.weight.item())
    assert quadratic(fresh, Optimizer(config, fresh), 5) != quadratic(layer, optimizer, 5)


def test_weight_decay_of_adamw_spares_vectors():
    layer = weights(1.0)
    optimizer = Optimizer(OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.5), layer)
    for w in layer.parameters():
        w.grad = torch.zeros_like(w)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(0.95)
    assert layer.bias.item() == 1.0
    assert math.isfinite(layer.weight.item())
