"""A setting that would do nothing is refused, and told where it would do something."""

from __future__ import annotations

from typing import Any

import pytest

from rnncli.cell_table import CELLS
from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.heeded import CELL_SETTINGS, require_rules, unheeded

WITHOUT_MATRIX = ("indrnn", "mingru", "minlstm", "qrnn", "sru", "rg-lru")
RECURRENT = {
    "model.recurrent_init": "orthogonal",
    "model.recurrent_scale": 0.5,
    "model.recurrent_connections": 3,
    "model.spectral_radius": 0.9,
    "regularization.weight_drop": 0.3,
    "regularization.dropout_state": 0.3,
    "regularization.recurrent_l1": 1e-4,
    "regularization.recurrent_l2": 1e-4,
}
FEEDING = {"task": "translate", "model.attention": "general", "model.look_up": "feeding"}


def config(**values: Any) -> Config:
    return Config().with_values({name.replace("__", "."): v for name, v in values.items()})


@pytest.mark.parametrize("setting", RECURRENT)
@pytest.mark.parametrize("cell", WITHOUT_MATRIX)
def test_a_cell_without_a_recurrent_matrix_has_no_use_for_it(cell: str, setting: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config().with_values({"model.cell": cell, setting: RECURRENT[setting]})
    message = str(caught.value)
    assert message.startswith(f"{setting}: {cell} has no matrix that multiplies its state")
    having = message.split(": ")[-1].split(", ")
    assert having == [name for name in CELLS if name not in WITHOUT_MATRIX]


@pytest.mark.parametrize("setting", RECURRENT)
def test_one_layer_that_has_a_use_for_it_is_enough(setting: str) -> None:
    values = {setting: RECURRENT[setting]}
    if setting == "model.recurrent_scale":
        values["model.recurrent_init"] = "normal"
    if setting == "model.recurrent_connections":
        values["model.recurrent_init"] = "sparse"
    for cell in ("gru", "mingru,elman"):
        Config().with_values({"model.cell": cell, **values})
    with pytest.raises(UsageError, match="mingru,sru has no matrix"):
        Config().with_values({"model.cell": "mingru,sru", **values})


def test_a_decoder_that_feeds_its_output_back_has_a_matrix() -> None:
    """W_f is dropped and penalised, whatever the cell; how it starts is not a question of these."""
    found = Config().with_values(
        {**FEEDING, "model.cell": "mingru", "regularization.weight_drop": 0.3}
    )
    assert found.regularization.weight_drop == 0.3
    with pytest.raises(UsageError, match="spectral_radius: mingru has no matrix"):
        Config().with_values({**FEEDING, "model.cell": "mingru", "model.spectral_radius": 0.9})
    with pytest.raises(UsageError, match="weight_drop: mingru has no matrix"):
        config(task="translate", model__cell="mingru", regularization__weight_drop=0.3)


@pytest.mark.parametrize("cell", [name for name, row in CELLS.items() if not row.forgets])
def test_no_forget_gate_no_bias_of_it(cell: str) -> None:
    with pytest.raises(UsageError, match=rf"^model\.forget_bias: {cell} has no forget gate .* lst"):
        config(model__cell=cell, model__forget_bias=0.0)


def test_what_it_usually_is_asks_for_nothing() -> None:
    """Files of version 0.1.0 name these values."""
    values = {"model__forget_bias": 1.0, "model__spectral_radius": 0.0, "model__init_scale": 0.1}
    assert config(model__cell="mingru", model__input="one-hot", **values).model.forget_bias == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recurrent_scale": 0.5}, "recurrent_scale: it scales a recurrent_init that is named"),
        (
            {"recurrent_scale": 0.5, "recurrent_init": "normal", "spectral_radius": 0.9},
            "recurrent_scale: the matrices are rescaled to a spectral radius of 0.9 afterwards",
        ),
        ({"recurrent_scale": 0.5, "cell": "echo-state"}, "spectral radius of 0.9 afterwards"),
        ({"recurrent_connections": 5}, "recurrent_connections: only a sparse start"),
        (
            {"recurrent_connections": 5, "recurrent_init": "identity"},
            "recurrent_connections: only a sparse start",
        ),
        ({"recurrent_connections": 5, "cell": "irnn"}, "recurrent_connections: only a sparse"),
        ({"init_scale": 0.5, "input": "one-hot"}, "init_scale: with init = 'default' it is the em"),
        ({"adaptive_cutoffs": [10]}, "adaptive_cutoffs: output = 'softmax' has none"),
        ({"cell": "dt-rnn", "maxout_pieces": 3}, "maxout_pieces: it would do nothing without a n"),
        (
            {"cell": "dots-rnn", "output_depth": 0, "output_nonlinearity": "tanh"},
            "output_nonlinearity: it would do nothing without model.output_depth above 0",
        ),
        ({"cell": "mogrifier", "rounds": 0, "rank": 3}, "rank: it would do nothing without"),
        ({"cell": "dt-rnn", "transition_depth": 1, "shortcuts": True}, "shortcuts: it would do"),
        (
            {"cell": "dts-rnn", "transition_depth": 1, "transition_input": "all"},
            "transition_input: it would do nothing without model.transition_depth above 1",
        ),
    ],
)
def test_what_needs_something_else(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"^model\..*{message}"):
        Config.from_dict({"model": values})


@pytest.mark.parametrize(
    "values",
    [
        {"recurrent_scale": 0.5, "recurrent_init": "orthogonal"},
        {"recurrent_scale": 0.5, "cell": "irnn"},
        {"recurrent_scale": 0.5, "cell": "echo-state", "spectral_radius": 0.0},
        {"recurrent_scale": 0.5, "cell": "echo-state,irnn"},
        {"recurrent_connections": 5, "cell": "echo-state"},
        {"recurrent_connections": 5, "recurrent_init": "sparse"},
        {"init_scale": 0.5},
        {"init_scale": 0.5, "input": "one-hot", "init": "normal"},
        {"init_scale": 0.5, "input": "one-hot", "cell": "irnn"},
        {"init_scale": 0.5, "input": "one-hot", "cell": "echo-state"},
        {"adaptive_cutoffs": [10], "output": "adaptive"},
        {"cell": "dot-rnn", "maxout_pieces": 3, "output_nonlinearity": "maxout"},
        {"cell": "dt-rnn", "transition_depth": 1},
    ],
)
def test_and_has_it(values: dict[str, Any]) -> None:
    Config.from_dict({"model": values})


@pytest.mark.parametrize("cell", CELLS)
def test_options_at_their_defaults_are_never_refused(cell: str) -> None:
    Config.from_dict({"model": {"cell": cell, **CELLS[cell].options}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "music", "tokenizer.kind": "word"}, "tokenizer.kind: music reads notes"),
        ({"task": "music", "data.strip_lines": True}, "data.strip_lines: music reads notes"),
        ({"model.output": "nade"}, "model.output: 'nade' is for the keys of music"),
        ({"model.frozen": ["embedding"], "model.input": "one-hot"}, "model.frozen: 'embedding'"),
        ({"task": "music", "model.nade_size": 9}, "model.nade_size: output = 'softmax' has none"),
        ({"task": "synthetic:copy", "data.valid": "x"}, "data.valid: synthetic:copy makes its own"),
        ({"task": "synthetic:copy", "model.embedding_size": 7}, "model.embedding_size: synthetic"),
        ({"task": "synthetic:copy", "model.init_scale": 0.5}, "model.init_scale: with init"),
    ],
)
def test_a_task_that_has_no_use_for_it(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        Config().with_values(values)


def test_the_settings_of_cells_are_known_for_every_cell() -> None:
    assert unheeded(["mingru"]) == frozenset(CELL_SETTINGS)
    assert unheeded(["gru"]) == {"model.forget_bias"}
    assert unheeded(["mingru", "lstm"]) == unheeded(["mingru", "no such cell"]) == frozenset()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.momentum": 0.9}, r"momentum: optimizer.name = 'adamw' has none.*'sgd' or"),
        ({"optimizer.name": "sgd", "optimizer.beta1": 0.5}, "beta1: optimizer.name = 'sgd'"),
        ({"optimizer.ema_decay": 0.9}, "ema_decay: optimizer.averaging = 'none'.*use 'ema'"),
        ({"schedule.newbob_threshold": 1.1}, "newbob_threshold: schedule.name = 'cosine'"),
        ({"schedule.name": "constant", "schedule.decay": 0.1}, "decay: schedule.name = 'constant'"),
        ({"model.input": "one-hot", "model.embedding_size": 7}, "embedding_size: model.input"),
        ({"tokenizer.kind": "bpe", "tokenizer.min_count": 3}, "min_count: tokenizer.kind = 'bpe'"),
        ({"synthetic.symbols": 3}, "synthetic.symbols: --task lm has none"),
        (
            {"tokenizer.kind": "bpe", "tokenizer.model": "x", "tokenizer.vocab_size": 9},
            "vocab_size: tokenizer.model has",
        ),
    ],
)
def test_what_is_of_another_rule_may_stand_in_a_file_and_not_be_asked_for(
    values: dict[str, Any], message: str
) -> None:
    sections = vars(Config().with_values(values))
    require_rules(("optimizer.name", "training.epochs"), sections)
    with pytest.raises(UsageError, match=message):
        require_rules(values, sections)


def test_a_rule_may_be_given_what_it_has() -> None:
    values = {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "schedule.final_fraction": 0.1}
    require_rules(values, vars(Config().with_values(values)))
    require_rules(["optimizer.momentum"], vars(Config()))  # 0, which is so anyway


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("training.engine", "vendor", r"dropout_state: the engine 'vendor'"),
        ("training.engine", "closed", r"use training\.engine = 'auto', 'deferred'"),
        ("regularization.omega", 1.0, r"omega: the derivative .*\.dropout_state = 0, or omega = 0"),
    ],
)
def test_dropout_of_the_state_goes_with_loops_alone(setting: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config().with_values({"regularization.dropout_state": 0.1, setting: value})


def test_pairs_are_batched_by_one_of_two_sizes() -> None:
    pairs = {"task": "translate", "training.state": "reset", "training.bptt": 0}
    found = Config().with_values({**pairs, "training.batch_tokens": 2000})
    require_rules(["training.batch_tokens"], vars(found))
    with pytest.raises(UsageError, match=r"training\.batch_size: .*batch_tokens = 2000"):
        require_rules(["training.batch_size"], vars(found))


def test_luong_s_name_of_additive_attention_is_known() -> None:
    with pytest.raises(UsageError, match=r"model\.attention: .*concat.*use 'additive'"):
        Config().with_values({"task": "translate", "model.attention": "concat"})
