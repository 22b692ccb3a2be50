"""Optimisers, clipping, penalties on weights, and averages of weights over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells import Cell
from rnncli.sections import OptimizerConfig, RegularizationConfig


class Optimizer:
    """Moves the weights that have a gradient by the rule that ``config.name`` names.

    Our own, since the first of torch's costs a second and a half of imports; the rules are the same
    to the last digits. ``lr`` is set before each step. What a rule remembers has a tensor for each
    parameter, by the parameter's number: ``state["exp_avg"][3]``.
    """

    def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:
        self.config = config
        self.lr = config.lr
        self.parameters = list(model.parameters())
        self.state: dict[str, dict[int, Tensor]] = {}
        self._rule = RULES[config.name]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        moved = [k for k, p in enumerate(self.parameters) if p.grad is not None]
        if self.config.name == "adamw":  # weight decay goes to matrices alone
            matrices = [k for k in moved if self.parameters[k].dim() > 1]
            vectors = [k for k in moved if self.parameters[k].dim() <= 1]
            parts = [(matrices, self.config.weight_decay), (vectors, 0.0)]
        else:
            parts = [(moved, self.config.weight_decay)]
        for numbers, decay in parts:
            if numbers:
                weights = [self.parameters[k].detach() for k in numbers]
                gradients = [g for k in numbers if (g := self.parameters[k].grad) is not None]
                self._rule(self, numbers, weights, gradients, decay)

    def remembered(self, name: str, numbers: Sequence[int], *, count: bool = False) -> list[Tensor]:
        """What is remembered as ``name`` for each of the parameters ``numbers``, at first zeros
        like the weight, or one zero with ``count``."""
        known = self.state.setdefault(name, {})
        for k in numbers:
            if k not in known:
                weight = self.parameters[k]
                known[k] = (
                    torch.zeros((), device=weight.device) if count else torch.zeros_like(weight)
                )
        return [known[k] for k in numbers]

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, flat: "3.exp_avg" is parameter 3's first moment."""
        return {f"{k}.{name}": t for name, known in self.state.items() for k, t in known.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what ``tensors`` gave."""
        self.state = {}
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            weight = self.parameters[int(number)]
            self.state.setdefault(name, {})[int(number)] = value.to(weight.device)


Tensors = list[Tensor]


def _sgd(o: Optimizer, numbers: list[int], weights: Tensors, g: Tensors, decay: float) -> None:
    """v = momentum v + g;  w -= lr v."""
    if decay:
        g = list(torch._foreach_add(g, weights, alpha=decay))
    if o.config.momentum:
        v = o.remembered("momentum_buffer", numbers)
        torch._foreach_mul_(v, o.config.momentum)
        torch._foreach_add_(v, g)
        g = v
    torch._foreach_add_(weights, g, alpha=-o.lr)


def _adam(o: Optimizer, numbers: list[int], weights: Tensors, g: Tensors, decay: float) -> None:
    """Kingma and Ba 2015, alg. 1; the decay is added to the gradient (adam) or taken from the
    weights (adamw, Loshchilov and Hutter 2019)."""
    update = torch._fused_adamw_ if o.config.name == "adamw" else torch._fused_adam_
    steps = o.remembered("step", numbers, count=True)
    torch._foreach_add_(steps, 1)
    moments = (o.remembered("exp_avg", numbers), o.remembered("exp_avg_sq", numbers))
    update(
        weights, g, *moments, [], steps, lr=o.lr, beta1=o.config.beta1, beta2=o.config.beta2,
        weight_decay=decay, eps=o.config.eps, amsgrad=False, maximize=False,
    )  # fmt: skip


def _rmsprop(o: Optimizer, numbers: list[int], weights: Tensors, g: Tensors, decay: float) -> None:
    """r = rho r + (1 - rho) g^2;  w -= lr g / (sqrt(r) + eps), with momentum if there is any."""
    if decay:
        g = list(torch._foreach_add(g, weights, alpha=decay))
    r = o.remembered("square_avg", numbers)
    torch._foreach_mul_(r, o.config.rho)
    torch._foreach_addcmul_(r, g, g, value=1 - o.config.rho)
    scale = torch._foreach_sqrt(r)
    torch._foreach_add_(scale, o.config.eps)
    if not o.config.momentum:
        torch._foreach_addcdiv_(weights, g, scale, value=-o.lr)
        return
    v = o.remembered("momentum_buffer", numbers)
    torch._foreach_mul_(v, o.config.momentum)
    torch._foreach_addcdiv_(v, g, scale)
    torch._foreach_add_(weights, v, alpha=-o.lr)


def _adagrad(o: Optimizer, numbers: list[int], weights: Tensors, g: Tensors, decay: float) -> None:
    """s = s + g^2;  w -= lr g / (sqrt(s) + eps) (Duchi et al. 2011)."""
    if decay:
        g = list(torch._foreach_add(g, weights, alpha=decay))
    s = o.remembered("sum", numbers)
    torch._foreach_addcmul_(s, g, g)
    scale = torch._foreach_sqrt(s)
    torch._foreach_add_(scale, o.config.eps)
    torch._foreach_addcdiv_(weights, g, scale, value=-o.lr)


def _adadelta(o: Optimizer, numbers: list[int], weights: Tensors, g: Tensors, decay: float) -> None:
    """Zeiler 2012, alg. 1, its step times lr: r = rho r + (1 - rho) g^2, d = g sqrt(s + eps) /
    sqrt(r + eps), s = rho s + (1 - rho) d^2;  w -= lr d."""
    if decay:
        g = list(torch._foreach_add(g, weights, alpha=decay))
    r, s = o.remembered("square_avg", numbers), o.remembered("acc_delta", numbers)
    torch._foreach_mul_(r, o.config.rho)
    torch._foreach_addcmul_(r, g, g, value=1 - o.config.rho)
    step = torch._foreach_add(s, o.config.eps)
    scale = torch._foreach_add(r, o.config.eps)
    torch._foreach_div_(step, scale)
    torch._foreach_sqrt_(step)
    torch._foreach_mul_(step, g)
    torch._foreach_mul_(s, o.config.rho)
    torch._foreach_addcmul_(s, step, step, value=1 - o.config.rho)
    torch._foreach_add_(weights, step, alpha=-o.lr)


RULES: dict[str, Callable[[Optimizer, list[int], Tensors, Tensors, float], None]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
}


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
        """Raises UsageError for a penalty on recurrent matrices of which none is learned."""
        self.terms: list[tuple[Tensor, float, float]] = []
        cells = [module for module in model.modules() if isinstance(module, Cell)]
        matrices = [weight for cell in cells for weight in cell.recurrent_weights().values()]
        carrying = {id(weight) for weight in matrices}
        if not any(weight.requires_grad for weight in matrices):
            for name in ("recurrent_l1", "recurrent_l2"):
                if getattr(config, name):
                    raise UsageError(
                        f"regularization.{name}: no recurrent matrix of this model is learned; "
                        "use 0, or free one (model.learned, model.frozen)"
                    )
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
    """Gaussian noise on the learned weight matrices while a batch is run (Jim et al. 1996; Graves
    2013)."""

    def __init__(self, std: float, model: nn.Module) -> None:
        self.std = std
        matrices = [p for p in model.parameters() if p.dim() > 1 and p.requires_grad]
        self.weights = matrices if std else []
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
