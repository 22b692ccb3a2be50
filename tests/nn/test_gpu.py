"""Cells, engines and runs on a CUDA device, beside the reference loop on the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rnncli
from rnncli.nn.recurrence import fastest, run
from tests.nn.cases import KINDS, assert_equal, engine_cases, everything, make, random_input
from tests.training.runs import run as train
from tests.training.runs import tiny_config, write_text

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


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


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "gru-cho2014", "mingru"])
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
