"""Cells, engines and runs on a CUDA device, beside the reference loop on the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import rnncli
from rnncli import runtime as machine
from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence import fastest, run
from rnncli.nn.recurrence.recorded import recordings
from rnncli.sections import ModelConfig
from tests.nn.cases import KINDS, H, I, assert_equal, engine_cases, everything, make, random_input
from tests.training.runs import run as train
from tests.training.runs import tiny_config, write_text

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def exact_products() -> None:
    if torch.cuda.is_available():
        machine.prepare(DEVICE, "float32")


@pytest.mark.parametrize(("kind", "engine"), [*engine_cases(), *((k, "auto") for k in KINDS)])
def test_float32_is_that_of_the_processor(kind: str, engine: str) -> None:
    expected = everything(make(kind), "reference", 7, 3)
    cell = make(kind).to(DEVICE, torch.float32)
    found = everything(cell, engine, 7, 3, torch.float32, DEVICE)
    for name, tensor in expected.items():
        assert_equal(found[name].double().cpu(), tensor, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near(kind: str) -> None:
    x, state = random_input(make(kind), 7, 3)
    found = []
    for device, weights, dtype in (
        ("cpu", torch.float64, torch.float64),
        (DEVICE, torch.float32, torch.bfloat16),
    ):
        cell = make(kind).to(device, weights)
        inputs, start = x.to(device, weights), tuple(part.to(device, weights) for part in state)
        y, _ = run(cell, inputs, start, cell.step_weights(), engine="auto", dtype=dtype)
        found.append(y.detach().double().cpu())
    assert float((found[1] - found[0]).abs().mean()) < 0.05 * float(found[0].abs().mean() + 1.0)


def forward(cell: Cell, engine: str, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Sequences drawn by ``seed`` -> what goes into a run, and what comes out."""
    x, state = random_input(cell, 7, 3, seed)
    inputs = [part.detach().to(DEVICE).requires_grad_() for part in (x, *state)]
    y, last = run(
        cell, inputs[0], tuple(inputs[1:]), cell.step_weights(), engine=engine, dtype=torch.float64
    )
    return [*inputs, *cell.parameters()], [y, *last]


def backward(inputs: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
    total = torch.stack([output.square().sum() for output in outputs]).sum()
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        (k, e)
        for k, e in engine_cases()
        if e not in ("reference", "vendor") and (k, e) != ("lstm", "closed")
    ],
)
def test_a_recorded_loop_is_the_loop(kind: str, engine: str) -> None:
    cell = make(kind).to(DEVICE)
    for seed in range(1, 6):
        expected, found = (forward(cell, name, seed) for name in ("reference", engine))
        for a, b in zip(expected[1], found[1], strict=True):
            assert_equal(b, a, 1e-9)
        for a, b in zip(backward(*expected), backward(*found), strict=True):
            assert_equal(b, a, 1e-9)
    assert recordings(cell) == 1
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(0.9)
    expected, found = (forward(cell, name, 9) for name in ("reference", engine))
    for a, b in zip(backward(*expected), backward(*found), strict=True):
        assert_equal(b, a, 1e-9)


@pytest.mark.parametrize("kind", ["elman-sigmoid", "dt-rnn", "mingru"])
def test_runs_of_one_shape_before_their_gradients(kind: str) -> None:
    cell = make(kind).to(DEVICE)
    for _ in range(3):
        backward(*forward(cell, "auto", 1))
    assert recordings(cell) == 1
    runs = [forward(cell, "auto", seed) for seed in (2, 3)]
    for seed, one in zip((2, 3), runs, strict=True):
        for a, b in zip(backward(*forward(cell, "reference", seed)), backward(*one), strict=True):
            assert_equal(b, a, 1e-9)


def test_what_is_drawn_by_the_step_is_not_recorded() -> None:
    cell = make_cell(ModelConfig(cell="lstm", zoneout=0.1), I, H).double().to(DEVICE)
    for seed in range(1, 4):
        backward(*forward(cell, "auto", seed))
    assert recordings(cell) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["lstm", "gru", "elman-tanh"])
def test_the_library_has_its_weights_as_it_wants_them(kind: str) -> None:
    cell = make(kind).to(DEVICE, torch.float32)
    x, state = random_input(cell, 7, 3)
    inputs = [part.detach().to(DEVICE, torch.float32).requires_grad_() for part in (x, *state)]
    y, _ = run(
        cell, inputs[0], tuple(inputs[1:]), cell.step_weights(), engine="vendor",
        dtype=torch.float32,
    )  # fmt: skip
    y.sum().backward()


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "gru-cho2014", "mingru", "dt-rnn"])
def test_a_run_there_is_a_model_here(cell: str, tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    config = tiny_config(text, model__cell=cell, training__device=DEVICE, training__epochs=2)
    train(config, tmp_path / "run")
    scores = [
        rnncli.load(tmp_path / "run", device=device).score(["ab abc", "", "dd e cab"])
        for device in ("cpu", DEVICE)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


@pytest.mark.parametrize("kind", ["lstm", "gru", "elman-tanh", "elman-relu"])
def test_what_cudnn_has_is_left_to_it(kind: str) -> None:
    assert fastest(make(kind), torch.float32, torch.device(DEVICE)) == "vendor"
