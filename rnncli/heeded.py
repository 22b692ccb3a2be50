"""Settings that would do nothing are refused: whoever gives one expects something of it.

A field at its default asks for nothing. What cannot be is refused by the sections themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.model_section import FORGET_BIAS, INIT_SCALE, ModelConfig

CELL_SETTINGS: dict[str, str] = {
    "model.recurrent_init": "recurrent",
    "model.recurrent_scale": "recurrent",
    "model.recurrent_connections": "recurrent",
    "model.spectral_radius": "recurrent",
    "model.forget_bias": "forgets",
    "regularization.weight_drop": "recurrent",
    "regularization.dropout_state": "recurrent",
    "regularization.recurrent_l1": "recurrent",
    "regularization.recurrent_l2": "recurrent",
}
"""Settings that mean something to some cells only: to those whose ``CellRow`` has this field
true."""

_OF_TEXT = (
    "data.strip_lines",
    "tokenizer.kind",
    "tokenizer.vocab_size",
    "tokenizer.min_count",
    "tokenizer.model",
)
_UNUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "music": ("reads notes, not text", _OF_TEXT),
    "synthetic": (
        "makes its own data",
        (
            *_OF_TEXT,
            "data.train",
            "data.valid",
            "data.valid_fraction",
            "data.weights",
            "model.input",
            "model.embedding_size",
            "model.embedding_scale",
            "model.tied",
            "model.output",
            "regularization.dropout_embedding",
            "regularization.activation_penalty",
            "regularization.temporal_activation_penalty",
            "regularization.r_drop",
            "training.sampled_softmax",
            "training.bptt_variable",
        ),
    ),
}
"""Of each kind of task, what it does instead of using these settings."""

_RULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "optimizer.momentum": ("optimizer.name", ("sgd", "rmsprop")),
    "optimizer.beta1": ("optimizer.name", ("adam", "adamw")),
    "optimizer.beta2": ("optimizer.name", ("adam", "adamw")),
    "optimizer.rho": ("optimizer.name", ("rmsprop", "adadelta")),
    "optimizer.eps": ("optimizer.name", ("adam", "adamw", "rmsprop", "adagrad", "adadelta")),
    "optimizer.averaging_window": ("optimizer.averaging", ("nt",)),
    "optimizer.ema_decay": ("optimizer.averaging", ("ema",)),
    "schedule.decay": ("schedule.name", ("newbob", "step")),
    "schedule.decay_after_epochs": ("schedule.name", ("step",)),
    "schedule.decay_every_epochs": ("schedule.name", ("step",)),
    "schedule.newbob_threshold": ("schedule.name", ("newbob",)),
    "schedule.final_fraction": ("schedule.name", ("cosine",)),
    "model.embedding_size": ("model.input", ("embedding",)),
    "tokenizer.min_count": ("tokenizer.kind", ("word", "char")),
    "source_tokenizer.min_count": ("source_tokenizer.kind", ("word", "char")),
}
"""Settings of one rule among several: the setting that names the rule, and which it may name."""

_TRAITS = {
    "recurrent": "matrix that multiplies its state",
    "forgets": "forget gate whose bias is set so",
}
"""What a cell has whose row has that field true."""

_USUAL: dict[str, float] = {
    "init_scale": INIT_SCALE,
    "forget_bias": FORGET_BIAS,
    "spectral_radius": 0.0,
}
"""What None usually means; files of version 0.1.0 name it, and it asks for nothing either."""


@dataclass(frozen=True)
class _Need:
    """What an option of a cell needs to mean anything: ``met``, by all its options; in words."""

    met: Callable[[Mapping[str, Any]], bool]
    text: str


_DEEP = _Need(lambda options: options["transition_depth"] > 1, "model.transition_depth above 1")
_NEEDS: dict[str, _Need] = {
    "maxout_pieces": _Need(
        lambda options: bool(
            {"maxout", "lp"} & {options["nonlinearity"], options["output_nonlinearity"]}
        ),
        "a nonlinearity of pieces, maxout or lp",
    ),
    "output_nonlinearity": _Need(
        lambda options: options["output_depth"] > 0, "model.output_depth above 0"
    ),
    "rank": _Need(lambda options: options["rounds"] > 0, "model.rounds above 0"),
    "shortcuts": _DEEP,
    "transition_input": _DEEP,
}


def unheeded(cells: Iterable[str]) -> frozenset[str]:
    """The settings of ``CELL_SETTINGS`` that none of ``cells`` heeds; of one that is not known,
    anything may be heeded."""
    rows = [CELLS.get(name) for name in cells]
    return frozenset(
        setting
        for setting, trait in CELL_SETTINGS.items()
        if not any(row is None or getattr(row, trait) for row in rows)
    )


def require_heeded(task: str, sections: Mapping[str, Any]) -> None:
    """Raise UsageError for a setting that would do nothing. ``sections``: those of a configuration,
    by their names."""
    model: ModelConfig = sections["model"]
    _require_a_use(task, sections)
    _require_cells_that_heed(task, model, sections)
    _require_options_that_count(model)
    _require_starts(model)
    no_embedding = model.input == "one-hot" or task.startswith("synthetic:")
    if "embedding" in model.frozen and no_embedding:
        raise UsageError(
            "model.frozen: 'embedding': there is no table of vectors to keep; leave it out"
        )
    if _asks(model, "init_scale") and no_embedding and not _scales_cells(model):
        raise UsageError(
            "model.init_scale: with init = 'default' it is the embedding's, and there is none; "
            "give model.init = 'normal' or 'uniform', or leave it out"
        )
    if model.output == "nade" and task != "music":
        raise UsageError(
            "model.output: 'nade' is for the keys of music, with --task music; use 'softmax' or "
            "'adaptive'"
        )
    if _asks(model, "nade_size") and model.output != "nade":
        raise UsageError(
            f"model.nade_size: output = {model.output!r} has none; use output = 'nade', or leave "
            "it out"
        )
    if model.adaptive_cutoffs and model.output != "adaptive":
        raise UsageError(
            f"model.adaptive_cutoffs: output = {model.output!r} has none; use output = "
            "'adaptive', or leave them out"
        )


def require_rules(given: Iterable[str], sections: Mapping[str, Any]) -> None:
    """Raise UsageError for one of the dotted names ``given`` by hand that the chosen rule does not
    have. What stands in a preset or a file beside another rule is left there, so that the rule
    alone can be exchanged."""
    for setting in given:
        owner, _, name = setting.rpartition(".")
        task = str(sections["task"])
        if owner == "synthetic" and not task.startswith("synthetic:"):
            raise UsageError(f"{setting}: --task {task} has none; it is for the synthetic tasks")
        if setting == "training.batch_size" and sections["training"].batch_tokens:
            raise UsageError(
                "training.batch_size: pairs are batched by training.batch_tokens = "
                f"{sections['training'].batch_tokens}; leave one of them out (batch_tokens = 0)"
            )
        if name == "vocab_size" and sections[owner].model is not None:
            raise UsageError(f"{setting}: {owner}.model has its size; leave it out")
        if setting not in _RULES:
            continue
        chooser, having = _RULES[setting]
        section, name = setting.split(".")
        chosen = getattr(sections[section], chooser.split(".")[1])
        if chosen not in having and _asks(sections[section], name):
            raise UsageError(
                f"{setting}: {chooser} = {chosen!r} has none, so it would do nothing; leave it "
                f"out, or use {' or '.join(repr(one) for one in having)}"
            )


def _asks(section: Any, name: str) -> bool:
    """Whether a field of a section says something that is not so anyway."""
    value = getattr(section, name)
    return bool(value != getattr(type(section), name) and value != _USUAL.get(name))


def _require_a_use(task: str, sections: Mapping[str, Any]) -> None:
    instead, names = _UNUSED.get(task.partition(":")[0], ("", ()))
    for setting in names:
        section, name = setting.split(".")
        if _asks(sections[section], name):
            raise UsageError(f"{setting}: {task} {instead} and does not use this; leave it out")


def _require_cells_that_heed(task: str, model: ModelConfig, sections: Mapping[str, Any]) -> None:
    # A decoder that feeds its output back has a matrix for it, whatever its cell.
    feeds = task == "translate" and model.look_up == "feeding"
    for setting in sorted(unheeded(model.all_cell_names())):
        section, name = setting.split(".")
        if not _asks(sections[section], name) or (feeds and section == "regularization"):
            continue
        trait, default = CELL_SETTINGS[setting], getattr(type(sections[section]), name)
        having = ", ".join(cell for cell, row in CELLS.items() if getattr(row, trait))
        raise UsageError(
            f"{setting}: {model.cells} has no {_TRAITS[trait]}, so it would do nothing; "
            f"{'leave it out' if default is None else f'use {default!r}'}, or a cell that has "
            f"one: {having}"
        )


def _require_options_that_count(model: ModelConfig) -> None:
    """Options of cells that others make meaningless."""
    for name, need in _NEEDS.items():
        value = getattr(model, name)
        taking = [(m, k) for m, k in _kinds(model) if name in m.cell_row(k).options]
        if value is None or all(value == m.cell_row(k).options[name] for m, k in taking):
            continue
        if not any(need.met(m.cell_options(k)) for m, k in taking):
            raise UsageError(
                f"model.{name}: it would do nothing without {need.text}; give that, or leave it out"
            )


def _require_starts(model: ModelConfig) -> None:
    """What belongs to one kind of start of the recurrent matrices."""
    starts = [{**vars(m), **m.own_start(k)} for m, k in _kinds(model) if m.cell_row(k).recurrent]
    if not starts:
        return
    scaled = [start for start in starts if start["recurrent_init"] != "default"]
    if _asks(model, "recurrent_scale") and not scaled:
        raise UsageError(
            "model.recurrent_scale: it scales a recurrent_init that is named, and none is; give "
            "model.recurrent_init (orthogonal, identity, sparse, uniform or normal), or leave it "
            "out"
        )
    if _asks(model, "recurrent_scale") and all(start["spectral_radius"] for start in scaled):
        raise UsageError(
            "model.recurrent_scale: the matrices are rescaled to a spectral radius of "
            f"{scaled[0]['spectral_radius']:g} afterwards; give model.spectral_radius instead "
            "(0: they are not)"
        )
    sparse = any(start["recurrent_init"] == "sparse" for start in starts)
    if _asks(model, "recurrent_connections") and not sparse:
        raise UsageError(
            "model.recurrent_connections: only a sparse start leaves connections out; give "
            "model.recurrent_init = 'sparse', or leave it out"
        )


def _scales_cells(model: ModelConfig) -> bool:
    """Whether ``init_scale`` says anything of other weights than the embedding's."""
    return model.init != "default" or any("init" in m.own_start(k) for m, k in _kinds(model))


def _kinds(model: ModelConfig) -> list[tuple[ModelConfig, int]]:
    """A layer of each cell that is named, and the configuration whose layer it is."""
    return [(side, k) for side in model.sides() for k in range(len(side.cell_names()))]
