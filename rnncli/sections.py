"""The sections of a configuration, each a frozen dataclass that checks itself.

Field names are the names used everywhere else: ``[model] hidden_size`` is ``--hidden-size`` on the
command line, ``--set model.hidden_size=...`` and ``config.model.hidden_size`` in Python.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rnncli.checks import require_choice, require_range
from rnncli.errors import UsageError
from rnncli.model_section import ModelConfig as ModelConfig

TOKENIZERS = ("byte", "char", "word", "bpe", "unigram")
MEASURED = "measured"
ENGINES = ("auto", MEASURED, "reference", "deferred", "closed", "scan", "vendor")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta")
SCHEDULES = ("constant", "newbob", "step", "cosine")
AVERAGING = ("none", "nt", "ema")
STATES = ("carried", "reset")
BEST_BY = ("loss", "bleu", "chrf", "exact_match", "token_error_rate")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class DataConfig:
    """Where the data is. ``weights`` repeat each training file so many times an epoch.
    ``transpose``: semitones by which a training piece of music is moved up or down at most, drawn
    anew for every epoch. Parallel text is in tables (``train``, ``valid``; source TAB target) or in
    files for its sides; training pairs with more than ``max_length`` tokens on a side are left out
    (0: none)."""

    train: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    valid: str | None = None
    valid_fraction: float = 0.05
    strip_lines: bool = False
    transpose: int = 0
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    valid_source: str | None = None
    valid_target: str | None = None
    max_length: int = 0

    def __post_init__(self) -> None:
        require_range("data", "transpose", self.transpose, 0, 48)
        require_range("data", "max_length", self.max_length, 0)
        if (self.valid_source is None) != (self.valid_target is None):
            raise UsageError("data.valid_source and data.valid_target: give both, or neither")
        if self.valid is not None and self.valid_source is not None:
            raise UsageError(
                "data.valid and data.valid_source: give a table of pairs, or files for the sides"
            )
        require_range("data", "valid_fraction", self.valid_fraction, 0.0, 1.0, open_high=True)
        for weight in self.weights:
            require_range("data", "weights", weight, 0.0)
        files = len(self.train) + len(self.source)  # one of the two is empty
        if self.weights and len(self.weights) != files:
            raise UsageError(
                f"data.weights: {len(self.weights)} weights for {files} training files; "
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
        require_choice("tokenizer", "kind", self.kind, TOKENIZERS)
        require_range("tokenizer", "vocab_size", self.vocab_size, 0)
        require_range("tokenizer", "min_count", self.min_count, 1)
        if self.model is not None and self.kind not in ("bpe", "unigram"):
            raise UsageError(
                f"tokenizer.model: a sentencepiece model goes with kind bpe or unigram, "
                f"not {self.kind!r}"
            )


@dataclass(frozen=True)
class RegularizationConfig:
    """What holds the model back. ``dropout`` is the rate between layers, and of ``dropout_input``
    and ``dropout_output`` unless they are given. ``locked``: one mask for all time steps (Gal and
    Ghahramani 2016). ``dropout_embedding``: the share of the vocabulary that a batch does not see,
    wherever its words stand. ``dropout_state``: the share of the state's units that the recurrent
    matrices do not see, with one mask for a batch's piece of time (Gal and Ghahramani 2016).
    ``weight_drop``: DropConnect on the recurrent matrices (Merity 2017), with
    ``activation_penalty`` (AR) and ``temporal_activation_penalty`` (TAR). ``l1`` and ``l2`` are
    added to the mean loss a token, on all weight matrices or on the recurrent ones alone.
    ``weight_noise``: standard deviation of Gaussian noise on the weight matrices, drawn anew for
    every batch. ``label_smoothing``: the share of a target's probability that is spread over all
    tokens. ``subword_dropout``: the chance that a merge of bpe is left out of a training pair,
    drawn anew for every epoch (Provilkov et al. 2020). ``r_drop``: alpha of regularised dropout, by
    which a batch is run twice and what both passes predict is to agree
    (``rnncli.nn.consistency``).
    ``omega``: how much the regulariser of Pascanu et al. 2013 counts, which holds the gradient's
    norm from one time step to the one before (``rnncli.nn.omega``)."""

    dropout: float = 0.0
    dropout_input: float | None = None
    dropout_output: float | None = None
    dropout_embedding: float = 0.0
    dropout_state: float = 0.0
    locked: bool = False
    weight_drop: float = 0.0
    activation_penalty: float = 0.0
    temporal_activation_penalty: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    recurrent_l1: float = 0.0
    recurrent_l2: float = 0.0
    weight_noise: float = 0.0
    label_smoothing: float = 0.0
    subword_dropout: float = 0.0
    r_drop: float = 0.0
    omega: float = 0.0

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if "dropout" in f.name or f.name in ("weight_drop", "label_smoothing"):
                require_range("regularization", f.name, value, 0.0, 1.0, open_high=True)
            elif f.name != "locked":
                require_range("regularization", f.name, value, 0.0)

    @property
    def input_rate(self) -> float:
        return self.dropout if self.dropout_input is None else self.dropout_input

    @property
    def output_rate(self) -> float:
        return self.dropout if self.dropout_output is None else self.dropout_output

    @property
    def copies(self) -> int:
        """How often a batch is run beside itself."""
        return 2 if self.r_drop else 1


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move. ``averaging``: ``nt`` is averaged SGD started once validation has not
    improved for ``averaging_window`` validations (Merity 2017), ``ema`` an exponential moving
    average with ``ema_decay``. ``clip_norm`` and ``clip_value`` 0 mean no clipping.
    ``weight_decay``: with adamw of the matrices, with all others of every weight, gains too."""

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
        require_choice("optimizer", "name", self.name, OPTIMIZERS)
        require_choice("optimizer", "averaging", self.averaging, AVERAGING)
        for name in ("lr", "eps", "weight_decay", "clip_norm", "clip_value"):
            require_range("optimizer", name, getattr(self, name), 0.0)
        for name in ("momentum", "beta1", "beta2", "rho", "ema_decay"):
            require_range("optimizer", name, getattr(self, name), 0.0, 1.0, open_high=True)
        require_range("optimizer", "averaging_window", self.averaging_window, 1)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time, as a multiple of ``optimizer.lr``.

    constant: 1. newbob: multiplied by ``decay`` whenever a validation does not improve the best by
    the factor ``newbob_threshold``. step: multiplied by ``decay`` once ``decay_after_epochs`` are
    over (0: from the first epoch on), and again every ``decay_every_epochs``. cosine: from 1 to
    ``final_fraction`` over the whole run, measured by whichever of epochs, steps and time is
    closest to its end. ``warmup_steps`` raise it
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
        require_choice("schedule", "name", self.name, SCHEDULES)
        require_range("schedule", "warmup_steps", self.warmup_steps, 0)
        require_range("schedule", "decay", self.decay, 0.0, 1.0)
        require_range("schedule", "decay_after_epochs", self.decay_after_epochs, 0)
        require_range("schedule", "decay_every_epochs", self.decay_every_epochs, 1)
        require_range("schedule", "newbob_threshold", self.newbob_threshold, 1.0)
        require_range("schedule", "final_fraction", self.final_fraction, 0.0, 1.0)


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in what pieces, on what machine. 0 means no limit (``epochs``, ``max_steps``,
    ``max_seconds``, ``patience``) or "once an epoch" (``valid_every_steps``). ``state`` carried:
    ``batch_size`` parallel streams cut in pieces of ``bptt`` tokens (truncated BPTT), the state
    handed on; reset: every line is a sequence of its own, in pieces of ``bptt`` with the state
    handed on within the line, or whole (full BPTT) with ``bptt`` 0. ``bptt_variable`` draws each
    length near ``bptt`` and scales the learning rate with it (Merity 2017). ``sampled_softmax``
    words are drawn for the training loss instead of the whole vocabulary (0: never), during the
    first ``sampled_fraction`` of the run; validation always uses the whole. A step adds up the
    gradients of ``accumulate`` pieces. Pairs may be batched by ``batch_tokens`` of both sides
    (0: by ``batch_size`` pairs). With ``risk_candidates`` pairs are learned by minimum risk
    training on so many drawn translations of each source (0: by likelihood), and ``risk_sharpness``
    is its alpha (``rnncli.training.risk``). ``start_from``: a model, or a run's folder, whose
    weights are the first ones; None: fresh weights. The best model is the one of the lowest
    validation ``loss``, or of the best of the other scores that a task has (``best_by``); the
    models of the last ``keep_models`` validations stay beside it (0: none). ``engine`` measured:
    the fastest one by a few steps at the beginning, which the run keeps when it is resumed."""

    epochs: int = 10
    max_steps: int = 0
    max_seconds: float = 0.0
    batch_size: int = 32
    batch_tokens: int = 0
    accumulate: int = 1
    bptt: int = 64
    bptt_variable: bool = False
    state: str = "carried"
    sampled_softmax: int = 0
    sampled_fraction: float = 0.85
    risk_candidates: int = 0
    risk_sharpness: float = 0.005
    start_from: str | None = None
    valid_every_steps: int = 0
    patience: int = 0
    best_by: str = "loss"
    keep_models: int = 0
    save_every_seconds: float = 60.0
    threads: int = 0
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"

    def __post_init__(self) -> None:
        require_choice("training", "state", self.state, STATES)
        require_choice("training", "device", self.device, DEVICES)
        require_choice("training", "precision", self.precision, PRECISIONS)
        require_choice("training", "engine", self.engine, ENGINES)
        require_choice("training", "best_by", self.best_by, BEST_BY)
        require_range("training", "batch_size", self.batch_size, 1)
        require_range("training", "accumulate", self.accumulate, 1)
        require_range("training", "bptt", self.bptt, 0 if self.state == "reset" else 1)
        require_range("training", "sampled_fraction", self.sampled_fraction, 0.0, 1.0)
        require_range("training", "risk_sharpness", self.risk_sharpness, 0.0)
        for name in ("epochs", "max_steps", "max_seconds", "sampled_softmax", "batch_tokens",
                     "risk_candidates", "valid_every_steps", "patience", "keep_models",
                     "save_every_seconds", "threads"):  # fmt: skip
            require_range("training", name, getattr(self, name), 0)

    @property
    def first_engine(self) -> str:
        """The one to begin with, before any is measured."""
        return "auto" if self.engine == MEASURED else self.engine


@dataclass(frozen=True)
class SyntheticConfig:
    """The long-lag tasks that make their own data (``rnncli.evaluation.synthetic``). ``lag`` is the
    T of the papers. ``symbols`` are to be copied, each of so many ``categories`` (copy, recall).
    Validation is on ``valid_sequences``; once ``solved_share`` of them are answered right, the run
    is over (0: it goes on)."""

    lag: int = 100
    symbols: int = 10
    categories: int = 8
    valid_sequences: int = 1000
    solved_share: float = 0.99

    def __post_init__(self) -> None:
        require_range("synthetic", "lag", self.lag, 10, 100_000)
        require_range("synthetic", "symbols", self.symbols, 1, 1000)
        require_range("synthetic", "categories", self.categories, 2, 1000)
        require_range("synthetic", "valid_sequences", self.valid_sequences, 1)
        require_range("synthetic", "solved_share", self.solved_share, 0.0, 1.0)
