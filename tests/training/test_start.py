"""A run that begins with the weights of another one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rnncli.checkpoint import read_model
from rnncli.errors import FileError, UsageError
from rnncli.training.events import Started
from rnncli.training.plan import plan
from rnncli.training.run import train
from tests.helpers import run_cli
from tests.training.runs import run, tiny_config, write_text
from tests.training.test_translation import config, write_pairs


@pytest.fixture
def first(tmp_path: Path) -> Path:
    run(tiny_config(write_text(tmp_path / "first.txt")), tmp_path / "first")
    return tmp_path / "first"


def test_the_weights_and_the_vocabulary_are_those_of_the_model(first: Path, tmp_path: Path) -> None:
    (tmp_path / "second.txt").write_text("abc dad\nbad\n" * 20)
    settings = tiny_config(tmp_path / "second.txt", training__start_from=str(first))
    events = train(settings, tmp_path / "second")
    started = next(events)
    assert isinstance(started, Started)
    assert any(f"weights are those of {first}" in text for text in started.notes)
    next(events)  # the model of before the first step is written
    events.close()
    before, after = read_model(first), read_model(tmp_path / "second")
    assert before.tokenizer is not None and after.tokenizer is not None
    assert after.tokenizer.to_bytes() == before.tokenizer.to_bytes()
    assert all(torch.equal(after.weights[name], w) for name, w in before.weights.items())


@pytest.mark.slow
def test_the_command_takes_sizes_and_tokenizers_from_the_model(first: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "second.txt", seed=2)
    command = ["train", str(text), "--start-from", str(first), "--out", str(tmp_path / "second")]
    done = run_cli(*command, "--max-steps", "3", "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert read_model(tmp_path / "second").config.model == read_model(first).config.model
    done = run_cli(*command, "--max-steps", "3", "--dry-run")
    assert done.returncode == 0, done.stderr
    done = run_cli(*command, "--overwrite", "--hidden-size", "9", "--max-steps", "1")
    assert done.returncode == 2
    assert b"holds another model" in done.stderr and b"leave out what changes" in done.stderr
    done = run_cli(*command, "--overwrite", "--tokenizer", "word", "--max-steps", "1")
    assert done.returncode == 2
    assert b"tokenizer.kind is 'word' and 'char' in" in done.stderr


def test_a_plan_is_of_that_model(first: Path, tmp_path: Path) -> None:
    (tmp_path / "second.txt").write_text("other words, other letters\n" * 9)
    rows = dict(plan(tiny_config(tmp_path / "second.txt", training__start_from=str(first))))
    tokenizer = read_model(first).tokenizer
    assert tokenizer is not None
    assert rows["vocabulary"].startswith(f"{tokenizer.vocab_size} ")


def test_resumed_without_the_model_that_it_began_with(first: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "second.txt", seed=2)
    settings = tiny_config(text, training__start_from=str(first), training__epochs=1)
    run(settings, tmp_path / "second")
    (first / "model.safetensors").unlink()
    more = settings.with_values({"training.epochs": 2})
    run(more, tmp_path / "second", resume=True)


def test_translation_keeps_both_vocabularies(tmp_path: Path) -> None:
    own = {"source_tokenizer__kind": "char", "training__epochs": 1}
    run(config(write_pairs(tmp_path / "p.tsv", 80), **own), tmp_path / "first")
    (tmp_path / "q.tsv").write_text("six one\tONE SIX\n" * 30)
    own["training__start_from"] = str(tmp_path / "first")
    run(config(tmp_path / "q.tsv", **own), tmp_path / "second")
    before, after = (read_model(tmp_path / name) for name in ("first", "second"))
    assert before.source_tokenizer is not None and after.source_tokenizer is not None
    assert before.source_tokenizer.to_bytes() == after.source_tokenizer.to_bytes()


@pytest.mark.parametrize("task", ["music", "synthetic:adding"])
def test_tasks_without_text_begin_with_a_model_too(task: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("60,64 62 -\n60 62 64 65\n" * 20)
    given = ["--lag", "10"] if task != "music" else [str(tmp_path / "t")]
    command = ["train", "--task", task, *given, "--max-steps", "2", "--threads", "1"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    done = run_cli(*command, "--hidden-size", "9", "--out", first)
    assert done.returncode == 0, done.stderr
    done = run_cli(*command, "--start-from", first, "--out", second)
    assert done.returncode == 0, done.stderr
    assert read_model(tmp_path / "second").config.model.hidden_size == 9


def test_models_that_cannot_be_begun_with(first: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task is 'translate' and 'lm' in"):
        run(
            config(write_pairs(tmp_path / "p.tsv", 80), training__start_from=str(first)),
            tmp_path / "second",
        )
    settings = tiny_config(tmp_path / "first.txt", training__start_from=str(tmp_path / "none"))
    with pytest.raises(FileError, match="none"):
        run(settings, tmp_path / "second")
