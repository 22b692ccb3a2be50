"""A prepared stepper gives the logits of the model it was made from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.models import stepper as stepper_module
from rnncli.models.language_model import LanguageModel
from rnncli.models.packed import PRECISIONS, pack
from rnncli.models.stepper import prepare_stepper, read_prompt
from rnncli.nn.cells import elman
from rnncli.nn.cells.base import Cell
from rnncli.nn.state import State
from rnncli.sections import ModelConfig

V = 23


def make(seed: int = 0, **config: Any) -> LanguageModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 20, "embedding_size": 14, "init": "normal", "init_scale": 0.3}
    start = {"recurrent_init": "normal", "recurrent_scale": 0.2}  # an identity adds errors up
    model = LanguageModel(ModelConfig(**{**sizes, **start, **config}), V)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # a bias left out, or added twice, must show
                parameter.normal_(std=0.5)
    return model.eval().requires_grad_(False)


def largest_difference(model: LanguageModel, precision: str, rows: int) -> float:
    """Of the log-probabilities over some steps from states of their own."""
    prepared = prepare_stepper(model, precision)
    mine, its = prepared.start(None, rows), model.start(None, rows)
    worst = 0.0
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        tokens = torch.randint(V, (rows,), generator=generator)
        logits, mine = prepared.step(tokens, mine)
        expected, its = model.step(tokens, its)
        gap = torch.log_softmax(logits, 1) - torch.log_softmax(expected, 1)
        worst = max(worst, float(gap.abs().max()))
    return worst


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "more",
    [{}, {"input": "one-hot"}, {"tied": True}, {"output": "adaptive"}, {"layers": 1},
     {"initial_state": "learned"}],
    ids=str,
)  # fmt: skip
def test_float32_is_the_models_own_step(cell: str, more: dict[str, Any], rows: int) -> None:
    if cell == "slstm" and "initial_state" in more:
        pytest.skip("its start cannot be learned")
    assert largest_difference(make(cell=cell, **more), "float32", rows) < 1e-5


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "relu"])
def test_elman_with_its_nonlinearity(nonlinearity: str) -> None:
    assert largest_difference(make(cell="elman", nonlinearity=nonlinearity), "float32", 2) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        {"cell": "lstm", "residual": "add"},
        {"cell": "indrnn,gru,lstm", "layers": 3, "residual": "highway"},
        {"cell": "lstm", "residual": "add", "embedding_size": 20, "tied": True},
        {"cell": "lstm", "projection_size": 9, "coupled_gates": True},
        {"cell": "lstm", "layer_norm": True, "transition_depth": 2},
        {"cell": "gru", "layer_norm": True},
        {"cell": "elman", "layer_norm": True, "input": "one-hot"},
        {"cell": "mogrifier", "rank": 3, "coupled_gates": True},
        {"cell": "slstm", "heads": 2},
        {"cell": "lstm", "zoneout": 0.3, "zoneout_cell": 0.2},
        {"cell": "rhn", "layer_norm": True},
        {"cell": "fs-rnn", "layer_norm": True, "input": "one-hot"},
        {"cell": "slstm", "heads": 2, "layer_norm": True, "residual": "add"},
        {"cell": "qrnn", "layer_norm": True},
        {"cell": "dt-rnn", "layer_norm": True, "zoneout": 0.3},
    ],
    ids=str,
)
def test_float32_is_the_models_own_step_with_options(config: dict[str, Any]) -> None:
    assert largest_difference(make(**config), "float32", 2) < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_a_first_layer_too_large_for_a_table(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepper_module, "_TABLE_ELEMENTS", 0)
    assert largest_difference(make(cell=cell), "float32", 2) < 1e-5


class OwnProjection(Cell):
    """A cell that prepared weights know nothing about."""

    def __init__(self, config: ModelConfig, options: Any, *sizes: int) -> None:
        super().__init__(config, options, *sizes)
        self.reset_parameters(config)

    def project(self, x: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.cos(super().project(x, state, dtype))

    def step(self, projected: Any, state: Any, product: Any) -> Any:
        return (torch.tanh(projected + product("W_hh", torch.sin(state[0]))),)


@pytest.mark.parametrize("more", [{}, {"input": "one-hot"}], ids=str)
def test_any_cell_works(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elman, "Elman", OwnProjection)
    assert largest_difference(make(cell="elman", **more), "float32", 2) < 1e-5


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("precision", "least", "most"), [("float16", 1e-6, 5e-3), ("int8", 1e-4, 0.2)]
)
def test_smaller_weights_are_near(cell: str, precision: str, least: float, most: float) -> None:
    try:
        pack(torch.eye(4), None, precision)
    except UsageError:
        pytest.skip(f"this processor has no {precision} product")
    assert least < largest_difference(make(cell=cell), precision, 3) < most


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("inputs", [1, 40])
def test_a_row_is_the_same_beside_any_others(precision: str, inputs: int) -> None:
    torch.manual_seed(0)
    try:
        packed = pack(torch.randn(24, inputs), torch.randn(24), precision)
    except UsageError:
        pytest.skip(f"this processor has no {precision} product")
    rows = torch.randn(7, inputs) * torch.logspace(-3, 3, 7).unsqueeze(1)
    rows[3] = 0.0
    together, total = packed(rows), torch.randn(7, 24)
    added = packed.add(total, rows)
    for k in range(len(rows)):
        one = slice(k, k + 1)
        near = {"rtol": 1e-5, "atol": 1e-6 + 1e-5 * float(rows[k].abs().max())}
        torch.testing.assert_close(packed(rows[one]), together[one], **near)
        torch.testing.assert_close(packed.add(total[one], rows[one]), added[one], **near)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_steps_leave_earlier_states_alone(precision: str) -> None:
    try:
        prepared = prepare_stepper(make(), precision)
    except UsageError:
        pytest.skip(f"this processor has no {precision} product")
    _, state = prepared.step(torch.tensor([3]), prepared.start(None, 1))
    copy = [t.clone() for t in state.tensors()]
    first, _ = prepared.step(torch.tensor([5]), state)
    kept = first.clone()
    prepared.step(torch.tensor([7]), state)
    again, _ = prepared.step(torch.tensor([5]), state)
    assert all(torch.equal(a, b) for a, b in zip(copy, state.tensors(), strict=True))
    assert torch.equal(first, kept) and torch.equal(again, kept)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("length", [1, 2, 17])
def test_reading_a_prompt_equals_stepping_through_it(
    cell: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepper_module, "_PROMPT_PIECE", 5)
    model = make(cell=cell, initial_state="zero" if cell == "slstm" else "learned")
    prompt = torch.randint(V, (length,), generator=torch.Generator().manual_seed(2)).tolist()
    state: State = model.start(None, 1)
    for token in prompt[:-1]:
        _, state = model.step(torch.tensor([token]), state)
    for mine, expected in zip(read_prompt(model, prompt).tensors(), state.tensors(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(UsageError, match=r"weights: unknown value 'int4'.*int8"):
        prepare_stepper(make(), "int4")
