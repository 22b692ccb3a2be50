"""Configurations check themselves, and survive TOML."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli import model_section as model_module
from rnncli import sections as module
from rnncli.cell_table import CELLS, OPTIONS
from rnncli.config import Config, load_toml, parse_assignment
from rnncli.errors import FileError, UsageError
from rnncli.sections import (
    DataConfig,
    ModelConfig,
    RegularizationConfig,
    ScheduleConfig,
    TokenizerConfig,
    TrainingConfig,
)

OTHERS = ("task", "seed", "source_tokenizer")
SECTIONS = {f.name: f for f in dataclasses.fields(Config) if f.name not in OTHERS}
FIELDS = [
    (section, f)
    for section, of in SECTIONS.items()
    for f in dataclasses.fields(typing.get_type_hints(Config)[of.name])
]
CHOICES = {
    "tokenizer.kind": module.TOKENIZERS,
    "model.cell": tuple(CELLS),
    "model.direction": model_module.DIRECTIONS,
    "model.residual": model_module.RESIDUALS,
    "model.attention": model_module.ATTENTIONS,
    "model.bridge": model_module.BRIDGES,
    "model.look_up": model_module.LOOK_UPS,
    "model.context": model_module.CONTEXTS,
    "model.readout": model_module.READOUTS,
    "model.recurrent_init": model_module.RECURRENT_INITS,
    "model.input": ("embedding", "one-hot"),
    "model.nonlinearity": CELLS["elman"].choices["nonlinearity"],
    "model.initial_state": ("zero", "learned"),
    "model.output": ("softmax", "adaptive"),
    "model.init": model_module.INITS,
    "optimizer.name": module.OPTIMIZERS,
    "optimizer.averaging": module.AVERAGING,
    "schedule.name": module.SCHEDULES,
    "training.best_by": module.BEST_BY,
    "training.state": module.STATES,
    "training.device": module.DEVICES,
    "training.precision": module.PRECISIONS,
    "training.engine": module.ENGINES,
}


OF_CELLS = {"model.nonlinearity": {"model": {"cell": "elman", "nonlinearity": "relx"}}}
"""Where a choice belongs to some cells."""


def hint_of(section: str, field: dataclasses.Field[Any]) -> Any:
    return typing.get_type_hints(typing.get_type_hints(Config)[section])[field.name]


def values(name: str, hint: Any) -> st.SearchStrategy[Any]:
    """What a field may be, mostly; where fields exclude each other the test says so."""
    if name in CHOICES:
        return st.sampled_from(CHOICES[name])
    option = OPTIONS.get(name.removeprefix("model."))
    if option is not None and option.choices:
        return st.none() | st.sampled_from(option.choices)
    if option is not None and hint in (int | None, float | None):
        number = st.integers if hint == int | None else st.floats
        return st.none() | number(int(option.low), int(min(option.high, 2**40)))
    if isinstance(hint, types.UnionType):
        inner = next(h for h in typing.get_args(hint) if h is not type(None))
        return st.none() | values(name, inner)
    if name == "model.adaptive_cutoffs":
        return st.sets(st.integers(1, 10**6), max_size=3).map(lambda s: tuple(sorted(s)))
    if name.startswith("synthetic.") and hint is int:
        return st.integers(10, 1000)
    if name in ("data.weights", "tokenizer.model"):
        return st.just(() if name == "data.weights" else None)
    if typing.get_origin(hint) is tuple:
        return st.lists(values("", typing.get_args(hint)[0]), max_size=3).map(tuple)
    below_one = st.floats(0, 1, exclude_max=True)
    return {
        bool: st.booleans(),
        int: st.integers(1, 2**40),
        float: st.floats(1, 1e30) if name == "schedule.newbob_threshold" else below_one,
        str: st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    }[hint]


@st.composite
def configs(draw: st.DrawFn) -> Config:
    tree: dict[str, Any] = {"seed": draw(st.integers(0, 2**63 - 1))}
    for section, field in FIELDS:
        if draw(st.booleans()):
            name = f"{section}.{field.name}"
            value = draw(values(name, hint_of(section, field)))
            if value is not None:
                tree.setdefault(section, {})[field.name] = value
    model, training = tree.get("model", {}), tree.setdefault("training", {})
    for option in set(OPTIONS) - set(CELLS[model.get("cell", "lstm")].options):
        model.pop(option, None)
    for option, choices in CELLS[model.get("cell", "lstm")].choices.items():
        if model.get(option) not in choices:
            model.pop(option, None)
    model.pop("direction", None)
    others = ("transpose", "source", "target", "valid_source", "valid_target", "max_length")
    for name in others:
        tree.get("data", {}).pop(name, None)
    for name in ("attention", "look_up", "context", "readout", "bridge", "reverse_source"):
        model.pop(name, None)
    tree.get("regularization", {}).pop("label_smoothing", None)
    model.pop("learned", None)
    if model.get("input") == "one-hot" or model.get("output") == "adaptive":
        model["tied"] = False
    if model.get("input") == "one-hot":
        model.pop("embedding_scale", None)
    if model.get("output") == "adaptive":
        training["sampled_softmax"] = 0
    if tree.get("regularization", {}).get("omega"):
        training.pop("engine", None)
        model.pop("zoneout", None)
        model.pop("zoneout_cell", None)
    while True:
        try:
            return Config.from_dict(tree)
        except UsageError as error:  # it would do nothing: tests/test_heeded.py
            section, name = str(error).partition(":")[0].split(".")
            del tree[section][name]


@settings(deadline=None, max_examples=40)
@given(configs())
def test_toml_gives_the_configuration_back(config: Config) -> None:
    assert Config.from_dict(tomllib.loads(config.to_toml())) == config
    assert Config.from_dict(config.to_dict()) == config
    assert config.with_values({}) == config


def test_the_defaults_are_valid_and_what_is_missing_takes_them() -> None:
    assert Config.from_dict({}) == Config()
    assert Config.from_dict({"model": {"layers": 3}}).model == ModelConfig(layers=3)


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=lambda v: getattr(v, "name", v))
def test_every_field_names_its_wrong_type(section: str, field: dataclasses.Field[Any]) -> None:
    hint = hint_of(section, field)
    wrong: Any = 3 if hint in (bool, str, str | None) or "tuple" in str(hint) else "many"
    with pytest.raises(UsageError, match=rf"^{section}\.{field.name}: expected .*got {wrong!r}"):
        Config.from_dict({section: {field.name: wrong}})


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_answered_with_the_nearest(name: str) -> None:
    section, field = name.split(".")
    right = CHOICES[name][-1]
    near = right[:-1] + "x"
    with pytest.raises(UsageError) as caught:
        Config.from_dict({section: {field: near}, **OF_CELLS.get(name, {})})
    message = str(caught.value)
    assert message.startswith(f"{name}: unknown value {near!r}; did you mean '")
    assert all(choice in message.split("Choices: ")[1] for choice in CHOICES[name])
    assert caught.value.exit_code == 2


def test_nothing_near_is_not_guessed() -> None:
    with pytest.raises(UsageError, match=r"unknown value 'qqq'\. Choices: elman, irnn"):
        ModelConfig(cell="qqq")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, r"^modle: unknown section or field; did you mean 'model'\?"),
        ({"model": {"hiden_size": 3}}, r"^model.hiden_size: .*did you mean 'hidden_size'\?"),
        ({"model": 3}, r"^model: expected a section, got 3"),
        ({"seed": "x"}, r"^seed: expected int, got 'x'"),
        ({"model": {"layers": True}}, r"^model.layers: expected int, got True"),
        ({"model": {"layers": 2.0}}, r"^model.layers: expected int, got 2.0"),
        ({"optimizer": {"lr": False}}, r"^optimizer.lr: expected float, got False"),
        ({"model": {"adaptive_cutoffs": [1, "2"]}}, r"^model.adaptive_cutoffs: expected int"),
        ({"task": "translat"}, r"^config.task: unknown value 'translat'"),
    ],
)
def test_what_is_unknown_or_misplaced(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("model.layers", 0, "at least 1"),
        ("model.hidden_size", -1, "at least 1"),
        ("model.init_scale", -0.1, "at least 0"),
        ("regularization.dropout", 1.0, "at least 0 and below 1"),
        ("regularization.dropout_input", -0.1, "at least 0 and below 1"),
        ("regularization.weight_drop", 1.0, "at least 0 and below 1"),
        ("regularization.l2", -1.0, "at least 0"),
        ("optimizer.lr", -1.0, "at least 0"),
        ("optimizer.beta2", 1.0, "at least 0 and below 1"),
        ("optimizer.averaging_window", 0, "at least 1"),
        ("schedule.newbob_threshold", 0.9, "at least 1"),
        ("schedule.decay", 1.1, "from 0 to 1"),
        ("training.batch_size", 0, "at least 1"),
        ("training.bptt", 0, "at least 1"),
        ("training.threads", -1, "at least 0"),
        ("tokenizer.min_count", 0, "at least 1"),
        ("data.valid_fraction", 1.0, "at least 0 and below 1"),
        ("data.weights", [-1.0], "at least 0"),
    ],
)
def test_a_value_out_of_range_is_told_the_range(name: str, value: Any, bound: str) -> None:
    section, field = name.split(".")
    with pytest.raises(UsageError, match=rf"^{name}: .* out of range; it must be {bound}$"):
        Config.from_dict({section: {field: value}})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("name", ["optimizer.lr", "model.forget_bias", "training.max_seconds"])
def test_only_finite_numbers(name: str, value: float) -> None:
    section, field = name.split(".")
    with pytest.raises(UsageError, match=rf"^{name}: -?(nan|inf) is not a finite number"):
        Config.from_dict({section: {field: value}})


def test_made_by_hand_it_is_checked_too() -> None:
    with pytest.raises(UsageError, match=r"init_scale: inf .* at least 0 and finite"):
        ModelConfig(init_scale=math.inf)
    with pytest.raises(UsageError, match=r"l1: nan is out of range"):
        RegularizationConfig(l1=math.nan)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(tied=True, input="one-hot"), "model.tied: a one-hot input"),
        (lambda: ModelConfig(tied=True, output="adaptive"), "model.tied: the adaptive softmax"),
        (lambda: ModelConfig(adaptive_cutoffs=(5, 5)), "must be positive and increasing"),
        (lambda: ModelConfig(adaptive_cutoffs=(0, 5)), "must be positive and increasing"),
        (lambda: TokenizerConfig(kind="word", model="x"), "tokenizer.model: .* not 'word'"),
        (lambda: DataConfig(train=("a", "b"), weights=(1.0,)), "1 weights for 2 training files"),
        (
            lambda: Config(
                model=ModelConfig(output="adaptive"), training=TrainingConfig(sampled_softmax=9)
            ),
            "training.sampled_softmax: the adaptive softmax is not sampled",
        ),
        (
            lambda: Config(schedule=ScheduleConfig(), training=TrainingConfig(epochs=0)),
            "schedule.name: cosine needs an end",
        ),
    ],
)
def test_what_does_not_go_together(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_what_does_go_together() -> None:
    assert TrainingConfig(state="reset", bptt=0).bptt == 0
    assert Config(training=TrainingConfig(epochs=0, max_steps=5)).training.max_steps == 5
    assert TokenizerConfig(kind="bpe", model="x.model").model == "x.model"


def test_integers_pass_for_floats() -> None:
    lr = Config.from_dict({"optimizer": {"lr": 1}}).optimizer.lr
    assert lr == 1.0 and type(lr) is float


def test_none_is_left_out_and_removes() -> None:
    config = Config.from_dict({"regularization": {"dropout_input": 0.1}})
    assert "dropout_output" not in config.to_dict()["regularization"]
    assert config.with_values({"regularization.dropout_input": None}) == Config()


def test_dotted_names() -> None:
    config = Config().with_values({"model.layers": 3, "seed": 7, "data.train": ["a"]})
    assert (config.model.layers, config.seed, config.data.train) == (3, 7, ("a",))
    assert Config().model.layers == 2
    with pytest.raises(UsageError, match="'layers' is a value, not a section"):
        Config().with_values({"model.layers.x": 3})
    with pytest.raises(UsageError, match=r"^modl: unknown section or field; did you mean 'model'"):
        Config().with_values({"modl.layers": 3})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.layers=3", ("model.layers", 3)),
        ("optimizer.lr = 1e-3", ("optimizer.lr", 1e-3)),
        ("model.tied=true", ("model.tied", True)),
        ("model.cell=lstm", ("model.cell", "lstm")),
        ('model.cell="lstm"', ("model.cell", "lstm")),
        ("data.train=[\"a\", 'b']", ("data.train", ["a", "b"])),
        ("data.valid=a=b.txt", ("data.valid", "a=b.txt")),
    ],
)
def test_an_assignment(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["model.layers", "=3", " = 3"])
def test_no_assignment(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected section\.key=value"):
        parse_assignment(text)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[model]\nlayers = = 3\n")
    with pytest.raises(UsageError, match=r"config\.toml: not a TOML file: .*line 2"):
        load_toml(path)
    path.write_bytes(b'[model]\ncell = "\xff"\n')
    with pytest.raises(UsageError, match=r"config\.toml: not UTF-8 text"):
        load_toml(path)
    path.write_text("x = " + "[" * 20_000)
    with pytest.raises(UsageError, match=r"config\.toml: not a TOML file"):
        load_toml(path)
    path.write_bytes(b"\xef\xbb\xbf[model]\nlayers = 3\n")  # as some editors begin a file
    assert load_toml(path) == {"model": {"layers": 3}}
    with pytest.raises(FileError, match=r"cannot read .*none\.toml: No such file"):
        load_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("direction", ["backward", "alternating", "bidirectional"])
@pytest.mark.parametrize("task", ["lm", "music"])
def test_a_model_of_what_comes_next_must_not_read_it(task: str, direction: str) -> None:
    with pytest.raises(UsageError, match=r"model\.direction: .*is to predict.*use direction = 'fo"):
        Config.from_dict({"task": task, "model": {"direction": direction}})
    assert ModelConfig(direction=direction).direction == direction


def test_a_tied_projection_is_as_wide_as_the_embedding_and_its_layer_need_not_be() -> None:
    config = ModelConfig(layers=2, hidden_size=6, projection_size=4, embedding_size=4, tied=True)
    assert config.layer_sizes() == (6, 6)


@pytest.mark.parametrize(
    ("config", "fixed"),
    [
        ({}, False),
        ({"frozen": ("embedding",)}, True),
        ({"cell": "echo-state"}, True),
        ({"cell": "echo-state", "learned": ("embedding",)}, False),
        ({"cell": "echo-state", "learned": ("W_xh",)}, False),
        ({"cell": "echo-state", "tied": True}, False),
        ({"cell": "lstm,echo-state"}, False),
    ],
    ids=str,
)
def test_whether_the_embedding_is_fixed(config: dict[str, Any], fixed: bool) -> None:
    assert ModelConfig(**config).embedding_is_fixed == fixed


@pytest.mark.parametrize(
    ("tied", "sizes"), [(False, (6, 6, 6)), (True, (6, 6, 4))], ids=["untied", "tied"]
)
def test_layer_sizes(tied: bool, sizes: tuple[int, ...]) -> None:
    config = ModelConfig(layers=3, hidden_size=6, embedding_size=4, tied=tied)
    assert config.layer_sizes() == sizes


def test_a_source_is_read_by_the_kind_of_the_target_unless_it_says_so() -> None:
    word = {"task": "translate", "tokenizer.kind": "word", "training.state": "reset"}
    config = Config().with_values({**word, "source_tokenizer.vocab_size": 30})
    assert config.source_tokenizer is not None and config.source_tokenizer.kind == "word"
    config = config.with_values({"source_tokenizer.kind": "char"})
    assert config.source_tokenizer is not None and config.source_tokenizer.kind == "char"


def test_a_peephole_on_a_gru_is_told_whose_it_is() -> None:
    for name in ("model.peephole", "model.peepholes"):
        with pytest.raises(UsageError, match=rf"{name}: .*LSTM alone.*'lstm-peephole'"):
            Config().with_values({"model.cell": "gru", name: True})
