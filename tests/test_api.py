"""The Python interface: the same figures as the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import rnncli
from rnncli.config import Config
from rnncli.errors import DataError, FileError, UsageError
from tests.cli.in_process import Run, in_process
from tests.helpers import cli_env, tiny_model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("api"), scale=5.0)


@pytest.fixture
def score(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("score", capfd)


def test_a_model_says_what_it_is(path: Path):
    model = rnncli.load(path)
    assert model.config.model.hidden_size == 16
    assert model.tokenizer.kind == "char"
    assert rnncli.load(path.parent).score(["the"]) == model.score(["the"])
    assert rnncli.load(str(path)).config == model.config


def test_weights_are_the_model_s_by_their_names(path: Path):
    """A blank line's probability once more, by torch's own cell and the matrices."""
    model = rnncli.load(path)
    w = model.weights
    assert w["stack.cells.0.W_hh"].shape == (64, 16)
    assert not any(weight.requires_grad for weight in w.values())
    x = w["embedding.weight"][[model.tokenizer.boundary_id]] * model.config.model.embedding_scale
    for k in range(model.config.model.layers):
        matrices = [w[f"stack.cells.{k}.{name}"] for name in ("W_xh", "W_hh", "a")]
        cell = torch.nn.LSTMCell(x.shape[1], 16)
        state = dict(zip(("weight_ih", "weight_hh", "bias_ih"), matrices, strict=True))
        cell.load_state_dict({**state, "bias_hh": torch.zeros_like(matrices[2])})
        x = cell(x)[0]
    logits = x @ w["output.W_hy"].T + w["output.b"]
    expected = torch.log_softmax(logits, 1)[0, model.tokenizer.boundary_id]
    assert model.score([""]) == pytest.approx([float(expected.detach())], rel=1e-5)


def test_scores_are_those_of_the_command(path: Path, score: Run, tmp_path: Path):
    model, lines = rnncli.load(path), ["the cat", "", "sat on a mat"]
    numbers = model.score(lines)
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    out = score(path, tmp_path / "lines").removesuffix("\n").split("\n")
    assert [f"{number:.4f}" for number in numbers] == out
    assert len(model.score(["two\nlines"])) == 1


def test_a_text_or_a_file(path: Path, tmp_path: Path):
    model, text = rnncli.load(path), "the cat\nsat\n"
    (tmp_path / "text.txt").write_text(text)
    scores = model.evaluate(text)
    assert scores == model.evaluate(tmp_path / "text.txt")
    assert scores.counts.tokens == 12
    assert scores.nats == pytest.approx(-model.score([text[:-1]])[0], rel=1e-5)
    reset = model.evaluate(text, state="reset")
    assert reset.nats == pytest.approx(-sum(model.score(["the cat", "sat"])), rel=1e-5)
    assert model.evaluate(text * 20, columns=4).signature.endswith("|columns:4")
    with pytest.raises(DataError, match="empty"):
        model.evaluate("")
    with pytest.raises(FileError):
        model.evaluate(tmp_path / "nowhere")


def test_text_is_generated(path: Path):
    model = rnncli.load(path)
    text = model.generate("the ", max_new_tokens=20, seed=3)
    assert len(text) == 20
    assert text == model.generate("the ", max_new_tokens=20, seed=3)
    assert text != model.generate("the ", max_new_tokens=20, seed=4)
    assert model.generate(max_new_tokens=5, greedy=True) == model.generate(
        max_new_tokens=5, temperature=0.001, seed=1
    )
    assert (
        model.generate("the ", max_new_tokens=20, seed=3, stop=[text[5]])
        == (text[: text.index(text[5])])
    )
    with pytest.raises(UsageError, match="top_p"):
        model.generate(top_p=2.0)


def test_training_yields_events(tmp_path: Path):
    (tmp_path / "book.txt").write_text("the cat sat on the mat\n" * 40)
    config = Config().with_values(
        {
            "data.train": [str(tmp_path / "book.txt")],
            "model.layers": 1,
            "model.hidden_size": 8,
            "model.embedding_size": 8,
            "training.max_steps": 3,
            "training.batch_size": 2,
            "training.threads": 1,
            "training.precision": "float32",
        }
    )
    kinds = [type(event).__name__ for event in rnncli.train(config, tmp_path / "run")]
    assert kinds[0] == "Started"
    assert "EvalReport" in kinds
    assert rnncli.load(tmp_path / "run").score(["the cat"])[0] < 0


def test_importing_imports_no_torch():
    code = "import rnncli, sys; sys.exit('torch' in sys.modules or not callable(rnncli.load))"
    done = subprocess.run([sys.executable, "-c", code], env=cli_env(), timeout=60)
    assert done.returncode == 0
