"""Translation learned, resumed and searched for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from rnncli.config import Config
from rnncli.errors import DataError, UsageError
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
        ("data.max_length", 9),
        ("model.look_up", "before"),
        ("model.context", "every-step"),
        ("model.readout", "maxout"),
        ("model.bridge", "zero"),
    ):
        with pytest.raises(UsageError, match=rf"{name}: only --task translate"):
            Config().with_values({name: value})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"training.bptt": 5}, r"training\.bptt: 5 cuts text.*use bptt = 0"),
        ({"training.state": "carried", "training.bptt": 5}, r"training\.state: 'carried'"),
        ({"data.strip_lines": True}, r"data\.strip_lines"),
        ({"model.look_up": "feeding", "model.attention": "none"}, r"model\.look_up: 'feeding'"),
        ({"data.valid": "a", "data.valid_source": "b", "data.valid_target": "c"}, r"data\.valid"),
    ],
)
def test_settings_that_pairs_do_not_have(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "p.tsv", 8)
    with pytest.raises(UsageError, match=message):
        run(Config().with_values({**SETTINGS, "data.train": [str(pairs)], **more}), tmp_path / "r")


def test_data_that_cannot_be_used_is_told_before_training(tmp_path: Path) -> None:
    pairs, empty = write_pairs(tmp_path / "p.tsv", 8), tmp_path / "empty.tsv"
    empty.write_text("")
    for more, message in (
        ({"data__valid": str(empty)}, r"empty\.tsv: empty; give some pairs to validate on"),
        ({"data__max_length": 0, "data__train": [str(empty)]}, r"no pairs to train on"),
        ({"data__max_length": 1, "data__valid": str(pairs), "tokenizer__kind": "char"},
         r"data\.max_length: every training pair has more than 1 tokens"),
    ):  # fmt: skip
        values = {"data__train": [str(pairs)], **more}
        with pytest.raises(DataError, match=message):
            run(config(pairs, **values), tmp_path / "run")


def test_a_single_pair_is_trained_on(tmp_path: Path) -> None:
    events = run(config(write_pairs(tmp_path / "p.tsv", 1), training__max_steps=1), tmp_path / "r")
    assert not any(isinstance(event, EvalReport) for event in events)


def test_files_of_sides_have_weights_and_may_move(tmp_path: Path) -> None:
    lines = write_pairs(tmp_path / "p.tsv", 40).read_text().splitlines()
    for name in ("a", "b"):
        for side, ending in enumerate(("s", "t")):
            text = "".join(f"{line.split(chr(9))[side]}\n" for line in lines)
            (tmp_path / f"{name}.{ending}").write_text(text)
    sides = {
        "data.train": [],
        "data.source": [str(tmp_path / "a.s"), str(tmp_path / "b.s")],
        "data.target": [str(tmp_path / "a.t"), str(tmp_path / "b.t")],
        "data.weights": [2.0, 0.5],
        "training.max_steps": 3,
    }
    settings = Config().with_values({**SETTINGS, **sides})
    run(settings, tmp_path / "run")
    (tmp_path / "a.s").rename(tmp_path / "c.s")
    moved = {"data.source": [str(tmp_path / "c.s"), str(tmp_path / "b.s")], "training.max_steps": 5}
    run(settings.with_values(moved), tmp_path / "run", resume=True)
