"""Optimisers, clipping, penalties on weights, and averages of weights over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncli.nn.cells import Cell
from rnncli.sections import OptimizerConfig, RegularizationConfig


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that ``config.name`` names; weight decay goes to matrices alone for AdamW."""
    parameters = list(model.parameters())
    lr, decay = config.lr, config.weight_decay
    betas = (config.beta1, config.beta2)
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr, momentum=config.momentum, weight_decay=decay, fused=True
        )
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr, betas, config.eps, weight_decay=decay, fused=True)
    if config.name == "adamw":
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr, betas, config.eps, fused=True)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr, alpha=config.rho, eps=config.eps, weight_decay=decay,
            momentum=config.momentum,
        )  # fmt: skip
    return torch.optim.Adagrad(parameters, lr, weight_decay=decay, eps=config.eps)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, flat: "3.exp_avg" is parameter 3's first moment."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    for values in state.values():  # SGD keeps None where it has no momentum yet
        values.setdefault("momentum_buffer", None)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def gradient_norm(gradients: list[Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    norms = torch._foreach_norm(gradients)
    return float(torch.stack([n.float() for n in norms]).norm())


def clip(gradients: list[Tensor], norm: float, config: OptimizerConfig) -> None:
    """Rescale to ``clip_norm`` when the norm exceeds it; cut components at ``clip_value``."""
    if config.clip_norm and norm > config.clip_norm:
        torch._foreach_mul_(gradients, config.clip_norm / norm)
    if config.clip_value:
        torch._foreach_clamp_max_(gradients, config.clip_value)
        torch._foreach_clamp_min_(gradients, -config.clip_value)


class WeightPenalty:
    """L1 and L2 on weight matrices: their gradients are added to those of the loss."""

    def __init__(self, config: RegularizationConfig, model: nn.Module) -> None:
        self.terms: list[tuple[Tensor, float, float]] = []
        cells = [module for module in model.modules() if isinstance(module, Cell)]
        carrying = {id(weight) for cell in cells for weight in cell.recurrent_weights().values()}
        for weight in model.parameters():
            recurrent = id(weight) in carrying
            l1 = config.l1 + config.recurrent_l1 * recurrent
            l2 = config.l2 + config.recurrent_l2 * recurrent
            if weight.dim() > 1 and (l1 or l2):
                self.terms.append((weight, l1, l2))

    def add_gradients(self) -> None:
        """d/dw of l1 |w| + l2 w^2, added in place."""
        for weight, l1, l2 in self.terms:
            if weight.grad is None:
                continue
            if l2:
                weight.grad.add_(weight.detach(), alpha=2 * l2)
            if l1:
                weight.grad.add_(weight.detach().sign(), alpha=l1)


class WeightNoise:
    """Gaussian noise on the weight matrices while a batch is run (Jim et al. 1996; Graves 2013)."""

    def __init__(self, std: float, model: nn.Module) -> None:
        self.std = std
        self.weights = [p for p in model.parameters() if p.dim() > 1] if std else []
        self.clean: list[Tensor] = []

    def add(self) -> None:
        with torch.no_grad():
            self.clean = [w.clone() for w in self.weights]
            for weight in self.weights:
                weight.add_(torch.randn_like(weight), alpha=self.std)

    def remove(self) -> None:
        with torch.no_grad():
            for weight, clean in zip(self.weights, self.clean, strict=True):
                weight.copy_(clean)
        self.clean = []


class Averaging:
    """A second set of weights that follows the trained ones.

    ema: w' = decay w' + (1 - decay) w, every step, with the decay raised from 0 in the first steps.
    nt: the plain mean of all weights since the trigger, which falls when a validation is worse than
    the best one at least ``averaging_window`` validations earlier (Merity et al. 2017, algorithm 1,
    with the condition as their program has it).
    """

    def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:
        self.config = config
        self.weights = list(model.parameters())
        self.shadow: list[Tensor] = []
        self.steps = 0
        self.scores: list[float] = []
        if config.averaging == "ema":
            self._start()

    @property
    def active(self) -> bool:
        return bool(self.shadow)

    def _start(self) -> None:
        self.shadow = [w.detach().clone() for w in self.weights]
        self.steps = 0

    def update(self) -> None:
        """After an optimiser's step."""
        if not self.shadow:
            return
        self.steps += 1
        if self.config.averaging == "ema":
            weight = 1 - min(self.config.ema_decay, self.steps / (self.steps + 10))
        else:
            weight = 1 / self.steps
        torch._foreach_lerp_(self.shadow, [w.detach() for w in self.weights], weight)

    def validated(self, score: float) -> None:
        """Tell the trigger of ``nt`` a validation score (lower is better)."""
        window = self.config.averaging_window
        if self.config.averaging == "nt" and not self.shadow:
            earlier = self.scores[:-window]
            if earlier and score > min(earlier):
                self._start()
            self.scores.append(score)

    def swap(self) -> None:
        """Exchange the trained and the averaged weights; again, and they are back."""
        with torch.no_grad():
            for weight, shadow in zip(self.weights, self.shadow, strict=bool(self.shadow)):
                held = weight.detach().clone()
                weight.copy_(shadow)
                shadow.copy_(held)

    def restore(self, shadow: Iterable[Tensor], steps: int, scores: list[float]) -> None:
        self.shadow = [s.to(w) for s, w in zip(shadow, self.weights, strict=False)]
        self.steps, self.scores = steps, scores
