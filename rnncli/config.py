"""The whole description of a run: frozen dataclasses, TOML in, TOML out.

A configuration is checked where it is made: a wrong field names itself, its value and the valid
choices. Field names are the names used everywhere else: ``[model] hidden_size`` is
``--hidden-size`` on the command line, ``--set model.hidden_size=...`` and
``config.model.hidden_size`` in Python. A field that may be ``None`` is left out of the TOML file
when it is.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnncli.errors import FileError, UsageError, choices_hint

TASKS = ("lm",)
TOKENIZERS = ("byte", "char", "word", "bpe", "unigram")
CELLS = ("elman", "lstm", "gru", "gru-cho2014")
NONLINEARITIES = ("tanh", "sigmoid", "relu")
ENGINES = ("auto", "reference", "deferred", "closed", "vendor")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
SCHEDULES = ("constant", "newbob", "step", "cosine")
AVERAGING = ("none", "nt", "ema")
STATES = ("carried", "reset")
INITS = ("default", "uniform", "normal")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")


def _choice(section: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{section}.{name}: unknown value {value!r}{choices_hint(value, choices)}")


def _range(
    section: str,
    name: str,
    value: float | None,
    low: float,
    high: float = float("inf"),
    open_high: bool = False,
) -> None:
    """``value`` is None, or finite and within [low, high], or [low, high) with ``open_high``."""
    below = float("inf") if not open_high else high
    if value is None or (low <= value <= high and value < below):
        return
    bound = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
    if value == float("inf"):
        bound += " and finite"
    if open_high:
        bound = f"at least {low:g} and below {high:g}"
    raise UsageError(f"{section}.{name}: {value!r} is out of range; it must be {bound}")


@dataclass(frozen=True)
class DataConfig:
    """Where the text is. ``weights`` repeat each training file so many times an epoch."""

    train: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    valid: str | None = None
    valid_fraction: float = 0.05
    strip_lines: bool = False

    def __post_init__(self) -> None:
        _range("data", "valid_fraction", self.valid_fraction, 0.0, 1.0, open_high=True)
        for weight in self.weights:
            _range("data", "weights", weight, 0.0)
        if self.weights and len(self.weights) != len(self.train):
            raise UsageError(
                f"data.weights: {len(self.weights)} weights for {len(self.train)} training files; "
                "give one weight a file"
            )


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens. ``vocab_size`` 0: no limit (word, char) or 8000 (bpe, unigram)."""

    kind: str = "char"
    vocab_size: int = 0
    min_count: int = 1
    model: str | None = None

    def __post_init__(self) -> None:
        _choice("tokenizer", "kind", self.kind, TOKENIZERS)
        _range("tokenizer", "vocab_size", self.vocab_size, 0)
        _range("tokenizer", "min_count", self.min_count, 1)
        if self.model is not None and self.kind not in ("bpe", "unigram"):
            raise UsageError(
                f"tokenizer.model: a sentencepiece model goes with kind bpe or unigram, "
                f"not {self.kind!r}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The network. With ``tied`` and unequal sizes the last layer has ``embedding_size`` units."""

    cell: str = "lstm"
    layers: int = 2
    hidden_size: int = 512
    embedding_size: int = 512
    input: str = "embedding"
    embedding_scale: float = 1.0
    nonlinearity: str = "tanh"
    initial_state: str = "zero"
    output: str = "softmax"
    adaptive_cutoffs: tuple[int, ...] = ()
    tied: bool = False
    init: str = "default"
    init_scale: float = 0.1
    forget_bias: float = 1.0

    def __post_init__(self) -> None:
        _choice("model", "cell", self.cell, CELLS)
        _choice("model", "input", self.input, ("embedding", "one-hot"))
        _choice("model", "nonlinearity", self.nonlinearity, NONLINEARITIES)
        _choice("model", "initial_state", self.initial_state, ("zero", "learned"))
        _choice("model", "output", self.output, ("softmax", "adaptive"))
        _choice("model", "init", self.init, INITS)
        for name in ("layers", "hidden_size", "embedding_size"):
            _range("model", name, getattr(self, name), 1)
        _range("model", "init_scale", self.init_scale, 0.0)
        _range("model", "embedding_scale", self.embedding_scale, 0.0)
        if self.input == "one-hot" and self.embedding_scale != 1.0:
            raise UsageError(
                "model.embedding_scale: a one-hot input is the identity and is not scaled; "
                "use input = 'embedding' or embedding_scale = 1.0"
            )
        if self.tied and self.input == "one-hot":
            raise UsageError(
                "model.tied: a one-hot input has no embedding to share with the output layer; "
                "use input = 'embedding' or tied = false"
            )
        if self.tied and self.output == "adaptive":
            raise UsageError(
                "model.tied: the adaptive softmax has no single output matrix to tie; "
                "use output = 'softmax' or tied = false"
            )
        cutoffs = self.adaptive_cutoffs
        if any(b <= a for a, b in zip((0, *cutoffs), cutoffs, strict=False)):
            raise UsageError(
                f"model.adaptive_cutoffs: {list(cutoffs)} must be positive and increasing"
            )

    def layer_sizes(self) -> tuple[int, ...]:
        """Hidden units of each layer, first to last."""
        last = self.embedding_size if self.tied else self.hidden_size
        return (self.hidden_size,) * (self.layers - 1) + (last,)


@dataclass(frozen=True)
class RegularizationConfig:
    """What holds the model back. ``dropout`` is the rate between layers, and of ``dropout_input``
    and ``dropout_output`` unless they are given. ``locked``: one mask for all time steps (Gal and
    Ghahramani 2016). ``weight_drop``: DropConnect on the recurrent matrices (Merity 2017), with
    ``activation_penalty`` (AR) and ``temporal_activation_penalty`` (TAR). ``l1`` and ``l2`` are
    added to the mean loss a token, on all weight matrices or on the recurrent ones alone.
    ``weight_noise``: standard deviation of Gaussian noise on the weight matrices, drawn anew for
    every batch."""

    dropout: float = 0.0
    dropout_input: float | None = None
    dropout_output: float | None = None
    dropout_embedding: float = 0.0
    locked: bool = False
    weight_drop: float = 0.0
    activation_penalty: float = 0.0
    temporal_activation_penalty: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    recurrent_l1: float = 0.0
    recurrent_l2: float = 0.0
    weight_noise: float = 0.0

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name.startswith("dropout") or f.name == "weight_drop":
                _range("regularization", f.name, value, 0.0, 1.0, open_high=True)
            elif f.name != "locked":
                _range("regularization", f.name, value, 0.0)

    @property
    def input_rate(self) -> float:
        return self.dropout if self.dropout_input is None else self.dropout_input

    @property
    def output_rate(self) -> float:
        return self.dropout if self.dropout_output is None else self.dropout_output


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move. ``averaging``: ``nt`` is averaged SGD started once validation has not
    improved for ``averaging_window`` validations (Merity 2017), ``ema`` an exponential moving
    average with ``ema_decay``. ``clip_norm`` and ``clip_value`` 0 mean no clipping."""

    name: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    rho: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    clip_value: float = 0.0
    averaging: str = "none"
    averaging_window: int = 5
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        _choice("optimizer", "name", self.name, OPTIMIZERS)
        _choice("optimizer", "averaging", self.averaging, AVERAGING)
        for name in ("lr", "eps", "weight_decay", "clip_norm", "clip_value"):
            _range("optimizer", name, getattr(self, name), 0.0)
        for name in ("momentum", "beta1", "beta2", "rho", "ema_decay"):
            _range("optimizer", name, getattr(self, name), 0.0, 1.0, open_high=True)
        _range("optimizer", "averaging_window", self.averaging_window, 1)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time, as a multiple of ``optimizer.lr``.

    constant: 1. newbob: multiplied by ``decay`` whenever a validation does not improve the best by
    the factor ``newbob_threshold``. step: multiplied by ``decay`` every ``decay_every_epochs``
    after ``decay_after_epochs``. cosine: from 1 to ``final_fraction`` over the whole run, measured
    by whichever of epochs, steps and time is closest to its end. ``warmup_steps`` raise it
    linearly from 0 first, under any of them.
    """

    name: str = "cosine"
    warmup_steps: int = 0
    decay: float = 0.5
    decay_after_epochs: int = 0
    decay_every_epochs: int = 1
    newbob_threshold: float = 1.0
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        _choice("schedule", "name", self.name, SCHEDULES)
        _range("schedule", "warmup_steps", self.warmup_steps, 0)
        _range("schedule", "decay", self.decay, 0.0, 1.0)
        _range("schedule", "decay_after_epochs", self.decay_after_epochs, 0)
        _range("schedule", "decay_every_epochs", self.decay_every_epochs, 1)
        _range("schedule", "newbob_threshold", self.newbob_threshold, 1.0)
        _range("schedule", "final_fraction", self.final_fraction, 0.0, 1.0)


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in what pieces, on what machine. 0 means no limit (``epochs``, ``max_steps``,
    ``max_seconds``, ``patience``) or "once an epoch" (``valid_every_steps``). ``state`` carried:
    ``batch_size`` parallel streams cut in pieces of ``bptt`` tokens (truncated BPTT), the state
    handed on; reset: every line is a sequence of its own, in pieces of ``bptt`` with the state
    handed on within the line, or whole (full BPTT) with ``bptt`` 0. ``bptt_variable`` draws each
    length near ``bptt`` and scales the learning rate with it (Merity 2017). ``sampled_softmax``
    words are drawn for the training loss instead of the whole vocabulary (0: never), during the
    first ``sampled_fraction`` of the run; validation always uses the whole."""

    epochs: int = 10
    max_steps: int = 0
    max_seconds: float = 0.0
    batch_size: int = 32
    bptt: int = 64
    bptt_variable: bool = False
    state: str = "carried"
    sampled_softmax: int = 0
    sampled_fraction: float = 0.85
    valid_every_steps: int = 0
    patience: int = 0
    save_every_seconds: float = 60.0
    threads: int = 0
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"

    def __post_init__(self) -> None:
        _choice("training", "state", self.state, STATES)
        _choice("training", "device", self.device, DEVICES)
        _choice("training", "precision", self.precision, PRECISIONS)
        _choice("training", "engine", self.engine, ENGINES)
        _range("training", "batch_size", self.batch_size, 1)
        _range("training", "bptt", self.bptt, 0 if self.state == "reset" else 1)
        _range("training", "sampled_fraction", self.sampled_fraction, 0.0, 1.0)
        for name in ("epochs", "max_steps", "max_seconds", "sampled_softmax",
                     "valid_every_steps", "patience", "save_every_seconds", "threads"):  # fmt: skip
            _range("training", name, getattr(self, name), 0)


@dataclass(frozen=True)
class Config:
    """A run, completely: ``rnncli train --config`` with this repeats it."""

    task: str = "lm"
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _choice("config", "task", self.task, TASKS)
        _range("config", "seed", self.seed, 0, 2**63 - 1)
        if self.schedule.name == "cosine" and not (
            self.training.epochs or self.training.max_steps or self.training.max_seconds
        ):
            raise UsageError(
                "schedule.name: cosine needs an end; set training.epochs, training.max_steps "
                "or training.max_seconds"
            )
        if self.training.sampled_softmax and self.model.output == "adaptive":
            raise UsageError(
                "training.sampled_softmax: the adaptive softmax is not sampled; "
                "use model.output = 'softmax' or sampled_softmax = 0"
            )

    # -- to and from plain values ------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain values, sections nested, ``None`` left out."""
        values: dict[str, Any] = _plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The configuration of plain values; what is missing takes its default.

        Raises UsageError for an unknown section or field, or a value of the wrong type.
        """
        config: Config = _build(cls, values, "")
        return config

    def to_toml(self) -> str:
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """A copy with dotted names replaced: ``{"model.layers": 3}``."""
        tree = self.to_dict()
        for name, value in values.items():
            *sections, last = name.split(".")
            node = tree
            for section in sections:
                node = node.setdefault(section, {})
                if not isinstance(node, dict):
                    raise UsageError(f"{name}: {section!r} is a value, not a section")
            if value is None:
                node.pop(last, None)
            else:
                node[last] = value
        return Config.from_dict(tree)


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises FileError, or UsageError with the line that is wrong."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError.of("read", path, error) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"model.layers=3"`` -> ``("model.layers", 3)``; what is no TOML value is a string."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text}: expected section.key=value, as in model.layers=3")
    try:
        value = tomllib.loads(f"x = {raw.strip()}")["x"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return name.strip(), value


def _plain(node: Any) -> Any:
    if dataclasses.is_dataclass(node):
        pairs = ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node))
        return {name: _plain(value) for name, value in pairs if value is not None}
    return list(node) if isinstance(node, tuple) else node


def _build(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    built: dict[str, Any] = {}
    for name, value in values.items():
        label = f"{where}{name}"
        if name not in fields:
            kind = "field" if where else "section or field"
            raise UsageError(f"{label}: unknown {kind}{choices_hint(name, fields)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(f"{label}: expected a section, got {value!r}")
            built[name] = _build(typing.cast(type[Any], hint), value, f"{label}.")
        else:
            built[name] = _coerce(hint, value, label)
    return cls(**built)


def _coerce(hint: Any, value: Any, label: str) -> Any:
    """``value`` as the annotated type ``hint``, or a UsageError that names the type."""
    if isinstance(hint, types.UnionType):  # X | None
        inner = next(h for h in typing.get_args(hint) if h is not type(None))
        return None if value is None else _coerce(inner, value, label)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{label}: expected a list, got {value!r}")
        return tuple(_coerce(typing.get_args(hint)[0], item, label) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if type(value) is not hint:
        raise UsageError(f"{label}: expected {hint.__name__}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise UsageError(f"{label}: {value} is not a finite number")
    return value
