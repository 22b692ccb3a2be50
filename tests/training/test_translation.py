"""Translation learned, resumed and searched for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.loading import load_translators
from rnncli.training.events import EvalReport
from rnncli.translation import SearchOptions, Translator
from tests.training.runs import TINY, Killed, assert_same_state, at_step, kill, run

WORDS = ("one", "two", "three", "four", "five", "six")
SETTINGS: dict[str, Any] = {
    **TINY,
    "task": "translate",
    "tokenizer.kind": "word",
    "model.hidden_size": 48,
    "model.embedding_size": 48,
    "model.direction": "bidirectional",
    "model.attention": "general",
    "training.state": "reset",
    "training.bptt": 0,
    "training.batch_size": 16,
    "optimizer.lr": 0.01,
}


def write_pairs(path: Path, count: int = 800) -> Path:
    """Sources of one to four words; their translations are they in reverse, in capitals."""
    rng, lines = random.Random(1), []
    for k in range(count):
        words = rng.choices(WORDS, k=k % 4 + 1)
        lines.append(f"{' '.join(words)}\t{' '.join(w.upper() for w in reversed(words))}\n")
    path.write_text("".join(lines))
    return path


def config(pairs: Path, **more: Any) -> Config:
    values = {name.replace("__", "."): value for name, value in more.items()}
    return Config().with_values({**SETTINGS, "data.train": [str(pairs)], **values})


def translate(folder: Path, lines: list[str], **options: Any) -> list[str]:
    (one,) = load_translators([folder])
    found = Translator([one.model], one.tokenizer, SearchOptions(**options))(lines)
    return [hypotheses[0].text if hypotheses else "" for hypotheses in found]


def test_reversal_is_learned_and_read_back(tmp_path: Path) -> None:
    events = run(config(write_pairs(tmp_path / "p.tsv"), training__epochs=8), tmp_path / "run")
    last = [event for event in events if isinstance(event, EvalReport)][-1]
    assert last.score < 0.05
    assert last.scores["bleu"] > 95
    lines = ["six two", "", "one two three four", "five", "  "]
    expected = ["TWO SIX", "", "FOUR THREE TWO ONE", "FIVE", ""]
    assert translate(tmp_path / "run", lines) == expected
    for beam_size in (1, 3):
        for batch_size in (1, 7):
            found = translate(tmp_path / "run", lines, beam_size=beam_size, batch_size=batch_size)
            assert found == expected


@pytest.mark.parametrize("step", [1, 37])
def test_a_killed_run_ends_as_one_that_was_not(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(
        write_pairs(tmp_path / "p.tsv", 160), training__epochs=4, regularization__dropout=0.2,
        training__save_every_seconds=1e-9,
    )  # fmt: skip
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, step, kill)
        with pytest.raises(Killed):
            run(settings, tmp_path / "killed")
    run(settings, tmp_path / "killed", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def test_settings_of_translation_alone_are_refused_elsewhere() -> None:
    for name, value in (
        ("model.attention", "dot"),
        ("model.reverse_source", True),
        ("regularization.label_smoothing", 0.1),
        ("data.source", ["x"]),
    ):
        with pytest.raises(UsageError, match=rf"{name}: only --task translate"):
            Config().with_values({name: value})
