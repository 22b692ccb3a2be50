"""Dynamic evaluation: the model goes on learning from the text once it has predicted it.

Krause, Kahembwe, Murray and Renals 2018, "Dynamic evaluation of neural sequence models": after
every segment the weights take a gradient step, and decay back towards the trained ones,

    theta <- theta + lambda d (theta_0 - theta) - lr g / (rms + epsilon)      (sec. 4)

where rms is the root mean square of each weight's gradient on training text, and d = rms / mean
rms. Without training text for these statistics it is their plain variant: d and the divisor are 1.
The evaluated text itself never serves for them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rnncli.errors import DataError, UsageError
from rnncli.evaluation.language_model import StreamNats, model_device
from rnncli.evaluation.pieces import Array, Piece, column_pieces
from rnncli.models.language_model import LanguageModel
from rnncli.nn.stack import Run
from rnncli.nn.state import State

_EPSILON = 2e-5
_STATISTICS_COLUMNS = 100  # the authors'; the scale of rms, and so of lr, depends on it
_PLAIN_LR, _RMS_LR = 0.1, 5e-5
_PLAIN_DECAY, _RMS_DECAY = 0.0, 2e-3


@dataclass(frozen=True)
class DynamicConfig:
    """``lr`` and ``decay`` (the paper's lambda) None: 5e-5 and 0.002 with gradient statistics, 0.1
    and 0 without. ``segment``: tokens predicted, then learned from. Raises UsageError for a value
    out of range."""

    lr: float | None = None
    decay: float | None = None
    segment: int = 5

    def __post_init__(self) -> None:
        if self.lr is not None and not (0.0 <= self.lr < math.inf):
            raise UsageError(f"--dynamic-lr {self.lr:g}: it must be at least 0")
        if self.decay is not None and not 0.0 <= self.decay <= 1.0:
            raise UsageError(f"--dynamic-decay {self.decay:g}: it must be from 0 to 1")
        if self.segment < 1:
            raise UsageError(f"--dynamic-segment {self.segment}: it must be at least 1")


@dataclass(frozen=True)
class GradientStatistics:
    """``rms``: for each parameter, the root mean square of its gradient, in its shape.
    ``fingerprint``: SHA-256 (hexadecimal) of the text that they come from."""

    rms: tuple[Tensor, ...]
    fingerprint: str


def gradient_statistics(
    model: LanguageModel,
    ids: Array,
    boundary_id: int,
    *,
    segment: int,
    fingerprint: str,
    run_as: Run,
    advance: Callable[[int], None] | None = None,
) -> GradientStatistics:
    """Statistics over training text (N,), in segments of 100 columns, as the authors gather them.
    ``advance`` hears of the tokens of each.

    Raises DataError when the text is shorter than one such segment.
    """
    learner = _Learner(model, run_as)
    squares = [torch.zeros_like(p) for p in learner.parameters]
    count = 0
    columns = max(1, min(_STATISTICS_COLUMNS, len(ids)))
    for piece in column_pieces(ids, boundary_id, columns, segment):
        if len(piece.targets) < segment or piece.mask is not None:
            break  # a shorter one would have larger gradients
        learner.predict(piece)
        for square, gradient in zip(squares, learner.gradients(), strict=True):
            square.addcmul_(gradient, gradient)
        count += 1
        if advance:
            advance(piece.targets.size)
    if not count:
        raise DataError(
            f"--dynamic-train: {len(ids)} tokens are too few for gradient statistics; "
            f"expected at least {segment * _STATISTICS_COLUMNS}, best the whole training text"
        )
    return GradientStatistics(tuple((s / count).sqrt() for s in squares), fingerprint)


def dynamic_nats(
    model: LanguageModel,
    ids: Array,
    boundary_id: int,
    config: DynamicConfig,
    statistics: GradientStatistics | None,
    *,
    run_as: Run,
    unk_id: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> StreamNats:
    """A text (N,) as one stream, every segment predicted before it is learned from. ``advance``
    hears of the tokens of each.

    The weights that change are a copy's; the model stays as it is.
    """
    learner = _Learner(model, run_as)
    update = _Update(learner.parameters, config, statistics)
    nats, oov_nats = 0.0, 0.0
    for piece in column_pieces(ids, boundary_id, 1, config.segment):
        segment_nats = learner.predict(piece)
        nats += float(segment_nats.sum())
        if unk_id is not None:
            oov_nats += float(segment_nats[torch.from_numpy(piece.targets == unk_id)].sum())
        update(learner.gradients())
        if advance:
            advance(piece.targets.size)
    return StreamNats(nats, oov_nats, tokens=len(ids), columns=1)


def dynamic_note(config: DynamicConfig, statistics: GradientStatistics | None) -> str:
    """For signatures: what the adaptation was, and where its statistics come from."""
    lr, decay = _rates(config, statistics)
    scale = f"rms({statistics.fingerprint[:12]})" if statistics else "plain"
    return f"dynamic:{scale},lr={lr:g},decay={decay:g},segment={config.segment}"


def _rates(config: DynamicConfig, statistics: GradientStatistics | None) -> tuple[float, float]:
    lr, decay = (_RMS_LR, _RMS_DECAY) if statistics else (_PLAIN_LR, _PLAIN_DECAY)
    return (
        lr if config.lr is None else config.lr,
        decay if config.decay is None else config.decay,
    )


class _Learner:
    """A copy of a model that can take gradients, with the state it has reached."""

    def __init__(self, model: LanguageModel, run_as: Run) -> None:
        self.model = copy.deepcopy(model).eval()
        self.parameters: list[Tensor] = list(self.model.take_gradients())
        self._run_as = run_as
        self._state: State | None = None
        self._loss: Tensor | None = None

    def predict(self, piece: Piece) -> Tensor:
        """-log p of the targets (T, B) in float64 on the CPU; their mean is what is learned."""
        device = model_device(self.model)
        inputs, targets = (torch.from_numpy(a).to(device) for a in (piece.inputs, piece.targets))
        with torch.enable_grad():
            state = self._state or self.model.start(None, inputs.shape[1])
            nats, state = self.model.nats(inputs, targets, state, self._run_as)
            self._loss = nats.mean()
        self._state = state.detach()
        return nats.detach().double().cpu()

    def gradients(self) -> tuple[Tensor, ...]:
        """Of the mean nats of the last prediction, for each parameter."""
        assert self._loss is not None
        gradients = torch.autograd.grad(self._loss, self.parameters, materialize_grads=True)
        self._loss = None
        return gradients


class _Update:
    """theta <- theta + lambda d (theta_0 - theta) - lr g / (rms + epsilon), in place."""

    def __init__(
        self, parameters: list[Tensor], config: DynamicConfig, statistics: GradientStatistics | None
    ) -> None:
        self._parameters = parameters
        self._trained = [p.detach().clone() for p in parameters]
        self._lr, decay = _rates(config, statistics)
        self._decay = decay
        self._divisors: list[Tensor] | None = None
        self._pulls: list[Tensor | float] = [decay] * len(parameters)
        if statistics:
            self._divisors = [rms + _EPSILON for rms in statistics.rms]
            mean = torch.stack([rms.mean() for rms in statistics.rms]).mean()
            # More than 1 would overshoot the trained weights.
            self._pulls = [(decay * rms / mean).clamp_max(1.0) for rms in statistics.rms]

    @torch.no_grad()
    def __call__(self, gradients: tuple[Tensor, ...]) -> None:
        for k, (theta, g) in enumerate(zip(self._parameters, gradients, strict=True)):
            if self._decay:
                theta.lerp_(self._trained[k], self._pulls[k])
            if self._divisors is None:
                theta.add_(g, alpha=-self._lr)
            else:
                theta.addcdiv_(g, self._divisors[k], value=-self._lr)
