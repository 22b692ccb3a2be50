"""What the training loop yields. Each event is plain values, ready for a panel or a log."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from typing import Any

from rnncli.config import Config


@dataclass(frozen=True)
class Quantity:
    """What losses are: so much of ``name`` ("nats", "squared error") for each ``unit`` ("token",
    "frame"). ``perplexity``: whether its exponential is one."""

    name: str
    unit: str
    perplexity: bool

    def scores(self, value: float) -> dict[str, float]:
        """What a model's file says about a validation that gave ``value``."""
        scores = {f"valid_{self.name.replace(' ', '_')}": value}
        if self.perplexity:
            scores["valid_perplexity"] = math.exp(min(700.0, value))
        return scores


NATS_A_TOKEN = Quantity("nats", "token", perplexity=True)


@dataclass(frozen=True)
class Started:
    """Before the first step, or before going on after ``resumed_step`` steps."""

    config: Config
    parameters: int
    train_tokens: int
    valid_tokens: int
    steps_an_epoch: int
    total_steps: int  # 0 when time alone ends the run
    engine: str
    machine: str
    resumed_step: int
    notes: tuple[str, ...] = ()
    quantity: Quantity = NATS_A_TOKEN


@dataclass(frozen=True)
class StepReport:
    """The ``steps`` since the last report. ``nats`` is the mean a token over them; ``sampled`` says
    that it is the estimate of a sampled softmax. ``gradient_norm`` is that of the last step, before
    clipping; of all of them ``largest_gradient_norm`` is the largest, and ``clipped_steps`` had one
    above ``optimizer.clip_norm``: None where only the last is known. ``gradient_norms``: of each of
    them, to four digits."""

    step: int
    epoch: float
    nats: float
    tokens: int
    tokens_per_second: float
    lr: float
    gradient_norm: float
    seconds: float
    progress: float
    sampled: bool
    skipped_steps: int
    quantity: Quantity = NATS_A_TOKEN
    steps: int = 1
    largest_gradient_norm: float | None = None
    clipped_steps: int | None = None
    gradient_norms: tuple[float, ...] = ()


@dataclass(frozen=True)
class EvalReport:
    """A validation. ``score`` is what training minimises, a mean on the validation text, in the
    unit of ``quantity``.
    ``scores``: what else the task measures, by its names."""

    step: int
    epoch: float
    score: float
    tokens: int
    seconds: float
    best: bool
    averaged: bool
    scores: dict[str, float] = field(default_factory=dict)
    quantity: Quantity = NATS_A_TOKEN


@dataclass(frozen=True)
class Sample:
    """A text sampled from the model as it is."""

    step: int
    text: str


@dataclass(frozen=True)
class Saved:
    """Files written: the state to go on from, and the model when it is the best so far."""

    step: int
    best: bool


@dataclass(frozen=True)
class Skipped:
    """A step whose loss or gradient was not finite: the weights were left alone."""

    step: int
    epoch: float
    batch: str
    reason: str


@dataclass(frozen=True)
class Finished:
    """Why the run ended, and the best validation score (nan without validation text).
    ``peak_bytes``: the most memory that its process has held. ``solved_step``: when the task was
    found to be solved, None where it was not or cannot be."""

    step: int
    epoch: float
    reason: str
    best_score: float
    seconds: float
    weights_sha256: str
    peak_bytes: int = 0
    solved_step: int | None = None
    quantity: Quantity = NATS_A_TOKEN


Event = Started | StepReport | EvalReport | Sample | Saved | Skipped | Finished


def to_json(event: Event) -> str:
    """The whole event on one line, which ``from_json`` makes it of again."""
    values = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    for name, value in values.items():
        if isinstance(value, Config):
            values[name] = value.to_dict()
        elif isinstance(value, Quantity):
            values[name] = dataclasses.asdict(value)
    return json.dumps({"event": type(event).__name__, **values})


def from_json(line: str | bytes) -> Event:
    """The event that ``to_json`` gave ``line``; raises ValueError for what it never gives."""
    values = json.loads(line)
    kinds = {kind.__name__: kind for kind in typing.get_args(Event)}
    try:
        kind = kinds[values.pop("event")]
        if "config" in values:
            values["config"] = Config.from_dict(values["config"])
            values["notes"] = tuple(values["notes"])
        if "gradient_norms" in values:
            values["gradient_norms"] = tuple(values["gradient_norms"])
        if "quantity" in values:
            values["quantity"] = Quantity(**values["quantity"])
        event: Event = kind(**values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an event: {error}") from None
    return event


def record(event: Event) -> dict[str, Any]:
    """The event as one JSON object, with its kind under ``event``; what is no number is null."""
    values = {
        f.name: getattr(event, f.name)
        for f in dataclasses.fields(event)
        if f.name not in ("config", "quantity")
    }
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            values[name] = None
    return {"event": type(event).__name__, **values}
