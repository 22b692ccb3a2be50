"""The whole description of a run: frozen dataclasses, TOML in, TOML out.

A configuration is checked where it is made: a wrong field names itself, its value and the valid
choices. Field names are the names used everywhere else: ``[model] hidden_size`` is
``--hidden-size`` on the command line, ``--set model.hidden_size=...`` and
``config.model.hidden_size`` in Python. A field that may be ``None`` is left out of the TOML file
when it is. The sections are in ``rnncli.sections``.
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

from rnncli.checks import require_choice, require_range
from rnncli.errors import FileError, UsageError, choices_hint
from rnncli.heeded import require_heeded
from rnncli.sections import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizationConfig,
    ScheduleConfig,
    SyntheticConfig,
    TokenizerConfig,
    TrainingConfig,
)

TASKS = (
    "lm",
    "translate",
    "music",
    "synthetic:adding",
    "synthetic:copy",
    "synthetic:order",
    "synthetic:parity",
    "synthetic:permutations",
    "synthetic:recall",
)

TRANSLATION = (
    "model.attention",
    "model.look_up",
    "model.context",
    "model.readout",
    "model.bridge",
    "model.coverage",
    "model.encoder_layers",
    "model.encoder_cell",
    "model.shared_embedding",
    "model.reverse_source",
    "regularization.label_smoothing",
    "regularization.subword_dropout",
    "data.source",
    "data.target",
    "data.valid_source",
    "data.valid_target",
    "data.max_length",
    "training.batch_tokens",
    "training.best_by",
    "training.risk_candidates",
    "training.risk_sharpness",
)
"""What only translation has."""

PREDICTING = ("lm", "music")
"""The tasks whose targets are the inputs of the next time steps."""


@dataclass(frozen=True)
class Config:
    """A run, completely: ``rnncli train --config`` with this repeats it. ``source_tokenizer``: of a
    source with a vocabulary of its own; None: both sides have that of ``tokenizer``."""

    task: str = "lm"
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    source_tokenizer: TokenizerConfig | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

    def __post_init__(self) -> None:
        require_choice("config", "task", self.task, TASKS)
        require_range("config", "seed", self.seed, 0, 2**63 - 1)
        if self.task in PREDICTING and self.model.direction != "forward":
            raise UsageError(
                f"model.direction: with {self.model.direction!r} a layer would read what the model "
                "is to predict, and its figures would mean nothing; use direction = 'forward' (the "
                "others are for tasks that answer once they have read the whole sequence)"
            )
        if self.schedule.name == "cosine" and not (
            self.training.epochs or self.training.max_steps or self.training.max_seconds
        ):
            raise UsageError(
                "schedule.name: cosine needs an end; set training.epochs, training.max_steps "
                "or training.max_seconds"
            )
        if self.task != "translate":
            self._refuse_translation()
        self._check_r_drop()
        self._check_risk()
        if self.data.transpose and self.task != "music":
            raise UsageError(
                "data.transpose: only music is moved up and down; use 0, or task = 'music'"
            )
        require_heeded(self.task, vars(self))
        if self.regularization.omega:
            self._check_omega()
        looped = ["auto", "reference", "deferred"]
        if set(self.model.all_cell_names()) == {"rhn"}:
            looped.append("closed")
        if self.regularization.dropout_state and self.training.first_engine not in looped:
            raise UsageError(
                f"regularization.dropout_state: the engine {self.training.engine!r} multiplies by "
                "the whole state; use training.engine = 'auto', 'deferred' or 'reference'"
            )
        if self.source_tokenizer is not None and self.model.shared_embedding:
            raise UsageError(
                "model.shared_embedding: the source has a vocabulary of its own, and so an "
                "embedding of its own; use false, or leave source_tokenizer out"
            )
        if self.training.sampled_softmax and self.model.output == "adaptive":
            raise UsageError(
                "training.sampled_softmax: the adaptive softmax is not sampled; "
                "use model.output = 'softmax' or sampled_softmax = 0"
            )

    def _check_r_drop(self) -> None:
        """It is of two passes, over the whole vocabulary."""
        if not self.regularization.r_drop:
            return
        for name in ("sampled_softmax", "risk_candidates"):
            if getattr(self.training, name):
                raise UsageError(
                    f"training.{name}: regularised dropout compares what two passes predict of the "
                    f"whole vocabulary for a reference; use {name} = 0, or r_drop = 0"
                )
        if self.model.output == "adaptive":
            raise UsageError(
                "model.output: regularised dropout compares what two passes predict, word by word, "
                "and the adaptive softmax has clusters; use output = 'softmax', or r_drop = 0"
            )

    def _check_risk(self) -> None:
        """What is of likelihood means nothing to minimum risk training, and the other way about."""
        training = self.training
        if not training.risk_candidates:
            if training.risk_sharpness != TrainingConfig().risk_sharpness:
                raise UsageError(
                    "training.risk_sharpness: it is of minimum risk training; give "
                    "training.risk_candidates, or leave it out"
                )
            return
        if self.regularization.label_smoothing:
            raise UsageError(
                "regularization.label_smoothing: minimum risk training compares whole "
                "translations, and smooths no targets; use label_smoothing = 0"
            )
        if training.sampled_softmax:
            raise UsageError(
                "training.sampled_softmax: minimum risk training draws from the whole vocabulary; "
                "use sampled_softmax = 0"
            )

    def _refuse_translation(self) -> None:
        """Raise UsageError for a setting that another task would not heed."""
        if self.source_tokenizer is not None:
            raise UsageError("source_tokenizer: only --task translate has it; leave it out")
        for name in TRANSLATION:
            section, field_name = name.split(".")
            part = getattr(self, section)
            if getattr(part, field_name) != getattr(type(part)(), field_name):
                raise UsageError(f"{name}: only --task translate has it; leave it out")

    def _check_omega(self) -> None:
        """It runs each step's derivative once more, from states that a loop has to leave."""
        if self.training.first_engine not in ("auto", "reference", "deferred"):
            raise UsageError(
                f"regularization.omega: the engine {self.training.engine!r} does not keep every "
                "step's state; use training.engine = 'auto', 'deferred' or 'reference'"
            )
        if self.regularization.dropout_state:
            raise UsageError(
                "regularization.omega: the derivative of a step is that of the whole state; use "
                "regularization.dropout_state = 0, or omega = 0"
            )
        if self.model.zoneout or self.model.zoneout_cell:
            raise UsageError(
                "regularization.omega: zoneout draws anew whenever a step is run; use "
                "model.zoneout = 0 and model.zoneout_cell = 0, or omega = 0"
            )
        if self.training.accumulate > 1:
            raise UsageError(
                "regularization.omega: its gradient is added to that of each piece as it is, and "
                f"training.accumulate = {self.training.accumulate} weighs pieces by their tokens; "
                "use training.accumulate = 1, or omega = 0"
            )

    # -- to and from plain values ------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain values, sections nested, ``None`` left out."""
        values: dict[str, Any] = _plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The configuration of plain values; what is missing takes its default, and the kind of a
        source's tokenizer that of the other one.

        Raises UsageError for an unknown section or field, or a value of the wrong type.
        """
        own, shared = values.get("source_tokenizer"), values.get("tokenizer")
        if isinstance(own, Mapping) and isinstance(shared, Mapping) and "kind" in shared:
            own = {"kind": shared["kind"], **own}
            values = {**values, "source_tokenizer": own}
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
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileError.of("read", path, error) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"model.layers=3"`` -> ``("model.layers", 3)``; what is no TOML value is a string."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text}: expected section.key=value, as in model.layers=3")
    try:
        value = tomllib.loads(f"x = {raw.strip()}")["x"]
    except (ValueError, RecursionError):
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
        if name not in fields and label.startswith("model.peephole"):
            raise UsageError(
                f"{label}: peepholes are of the LSTM alone, and there is no option for them; use "
                "model.cell = 'lstm-peephole'"
            )
        if name not in fields:
            kind = "field" if where else "section or field"
            raise UsageError(f"{label}: unknown {kind}{choices_hint(name, fields)}")
        hint = hints[name]
        if isinstance(hint, types.UnionType) and value is not None:  # X | None
            hint = next(h for h in typing.get_args(hint) if h is not type(None))
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
