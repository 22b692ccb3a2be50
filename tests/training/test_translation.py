"""Translation learned, resumed and searched for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncli.averaging import average_models
from rnncli.checkpoint import read_header, read_model
from rnncli.config import Config
from rnncli.decoding.search_options import SearchOptions
from rnncli.errors import DataError, UsageError
from rnncli.loading import load_translators
from rnncli.runtime import prepare
from rnncli.sections import DataConfig
from rnncli.training.events import EvalReport, Finished
from rnncli.training.task import Validation
from rnncli.training.translation import Translation, open_task, read_text
from rnncli.translation import Translator
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
    found = Translator(
        [one.model], one.tokenizer, SearchOptions(**options),
        source_tokenizer=one.source_tokenizer,
    )(lines)  # fmt: skip
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


def test_a_residual_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv", 40)
    sizes = {"model__hidden_size": 8, "model__embedding_size": 6, "model__layers": 1}
    with pytest.raises(UsageError, match=r"model\.residual: 'add' leads .*size of its output"):
        run(config(pairs, model__residual="add", **sizes), tmp_path / "run")
    run(config(pairs, model__residual="add", training__max_steps=1, **sizes
               | {"model__embedding_size": 8}), tmp_path / "run")  # fmt: skip


def test_pairs_are_held_out_of_all_files(tmp_path: Path) -> None:
    big, small = write_pairs(tmp_path / "big.tsv", 90), write_pairs(tmp_path / "small.tsv", 10)
    names = (str(big), str(small))
    train, valid, notes = read_text(DataConfig(train=names, valid_fraction=0.2))
    assert [len(pairs) for pairs in train] == [72, 8] and valid is not None
    held = [*big.read_text().splitlines()[72:], *small.read_text().splitlines()[8:]]
    assert ["\t".join(pair) for pair in valid] == held
    assert "The last pairs of each file, 20 of 100, are held out" in notes[0]
    few, valid, _ = read_text(DataConfig(train=names, valid_fraction=0.001))
    assert [len(pairs) for pairs in few] == [89, 10] and valid is not None
    assert len(valid) == 1
    one = write_pairs(tmp_path / "one.tsv", 1)
    assert read_text(DataConfig(train=(str(one),)))[1] is None


@pytest.mark.slow
def test_each_side_may_have_a_vocabulary_of_its_own(tmp_path: Path) -> None:
    """Sources by character, targets by word: the end of a line has another number on each side."""
    settings = config(
        write_pairs(tmp_path / "p.tsv"), training__epochs=8, source_tokenizer__kind="char",
        model__tied=True, model__encoder_layers=2, model__coverage=True, model__look_up="between",
        model__attention="additive", model__cell="gru", training__batch_tokens=300,
    )  # fmt: skip
    run(settings, tmp_path / "run")
    (one,) = load_translators([tmp_path / "run"])
    assert one.source_tokenizer is not None
    assert one.source_tokenizer.kind == "char"
    assert len(one.model.source_embedding.weight) == one.source_tokenizer.vocab_size
    assert len(one.model.target_embedding.weight) == one.tokenizer.vocab_size
    assert one.model.encoder.cells_a_layer * 2 == len(one.model.encoder.cells)
    assert translate(tmp_path / "run", ["six two", "one two three"]) == ["TWO SIX", "THREE TWO ONE"]
    average_models([tmp_path / "run", tmp_path / "run"], tmp_path / "mean.safetensors")
    assert translate(tmp_path / "mean.safetensors", ["six two"]) == ["TWO SIX"]
    header = read_header(tmp_path / "run")
    assert (header.tokenizer_kind, header.source_tokenizer_kind) == ("word", "char")
    assert header.source_vocab_size == one.source_tokenizer.vocab_size


def test_the_best_model_is_the_one_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses fall while the scores are 3, 5, 4: by loss the last model is kept, by BLEU the second,
    by error rate the first."""
    pairs = write_pairs(tmp_path / "p.tsv", 80)
    for name, kept in (("loss", 3), ("bleu", 2), ("token_error_rate", 1)):
        told = iter(((3.0, 3.0), (2.0, 5.0), (1.0, 4.0)))

        def validate(task: Translation, told: Any = told) -> Validation:
            loss, score = next(told)
            return Validation(loss, 1, {"bleu": score, "token_error_rate": score})

        monkeypatch.setattr(Translation, "validate", validate)
        folder = tmp_path / name
        events = run(config(pairs, training__epochs=3, training__best_by=name), folder)
        assert read_header(folder).provenance["epochs"] == kept
        best = [event.best for event in events if isinstance(event, EvalReport)]
        assert best[kept - 1] and not any(best[kept:])
        assert [e.best_score for e in events if isinstance(e, Finished)] == [1.0]


def test_accumulated_gradients_are_those_of_one_batch(tmp_path: Path) -> None:
    """Two pieces of two pairs each move the weights as one of four does."""
    pairs = tmp_path / "p.tsv"
    pairs.write_text("one two\tA B C\ntwo one\tB\nsix two\tA A\ntwo five\tB B A B\n")
    folders = []
    for size, pieces in ((4, 1), (2, 2)):
        folders.append(tmp_path / f"{size}")
        run(
            config(
                pairs, training__batch_size=size, training__accumulate=pieces,
                data__valid_fraction=0.0, training__precision="float32",
                training__max_steps=3, optimizer__name="sgd", optimizer__lr=1.0,
            ),
            folders[-1],
        )  # fmt: skip
    one, other = (read_model(folder).weights for folder in folders)
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight)
    assert [read_header(folder).provenance["step"] for folder in folders] == [3, 3]
    headers = [read_header(folder) for folder in folders]
    assert [header.longest_source for header in headers] == [2, 2]
    assert [header.longest_target for header in headers] == [5, 5]
    assert headers[0].target_ratio == pytest.approx(2.5, abs=0.01)


@pytest.mark.parametrize("name", ["bleu", "chrf", "exact_match"])
def test_patience_is_with_the_score_that_chooses_the_best(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss falls at every validation, the score from the second on: the first is the best, and
    two more are waited for."""
    count: list[int] = []

    def validate(task: Translation) -> Validation:
        count.append(1)
        scores = {"bleu": 0.0, "chrf": 0.0, "exact_match": 0.0, "token_error_rate": 0.0}
        return Validation(10.0 - len(count), 10, {**scores, name: 0.9 ** len(count)})

    monkeypatch.setattr(Translation, "validate", validate)
    events = run(
        config(
            write_pairs(tmp_path / "p.tsv", 60), training__epochs=0, training__max_steps=99,
            training__valid_every_steps=2, training__patience=2, training__best_by=name,
        ),
        tmp_path / "run",
    )  # fmt: skip
    validations = [event for event in events if isinstance(event, EvalReport)]
    assert [event.best for event in validations] == [True, False, False]
    assert events[-1].reason == "no better validation in 2 in a row"  # type: ignore[union-attr]
    assert read_header(tmp_path / "run").provenance["step"] == 2


def test_pairs_that_are_too_long_are_counted_and_told(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv", 60)
    settings = config(pairs, data__max_length=3, data__valid_fraction=0.0, training__max_steps=1)
    started, *_ = run(settings, tmp_path / "run")
    assert started.notes == (  # type: ignore[union-attr]
        "15 training pairs have more than 3 tokens on a side and are left out (data.max_length).",
    )


def test_regularised_dropout_in_a_run(tmp_path: Path) -> None:
    """With next to no dropout two passes agree, and what is learned is that of one."""
    pairs = write_pairs(tmp_path / "p.tsv", 60)
    found = []
    for alpha in (0.0, 5.0):
        settings = config(
            pairs, training__max_steps=3, regularization__dropout=1e-7, regularization__r_drop=alpha
        )
        *_, last = run(settings, tmp_path / f"run{alpha}")
        found.append(last.best_score)
    alone = config(pairs, regularization__r_drop=5.0)
    with pytest.raises(UsageError, match=r"both passes are the same.*regularization\.dropout"):
        run(alone, tmp_path / "alone")
    assert found[0] == pytest.approx(found[1], abs=1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"training.sampled_softmax": 9}, r"training\.sampled_softmax: .*use sampled_softmax = 0"),
        ({"training.risk_candidates": 9}, r"training\.risk_candidates: .*use risk_candidates = 0"),
        ({"task": "lm", "model.output": "adaptive"}, r"model\.output: .*use output = 'softmax'"),
        ({"task": "synthetic:copy", "training.bptt": 0}, r"r_drop: synthetic:copy makes"),
    ],
)
def test_what_regularised_dropout_does_not_go_with(more: dict[str, Any], message: str) -> None:
    needed = {"task": "translate", "training.state": "reset", "regularization.dropout": 0.2}
    with pytest.raises(UsageError, match=message):
        Config().with_values({**needed, "regularization.r_drop": 1.0, **more})


def test_subwords_are_drawn_anew_for_every_epoch(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv", 60)
    settings = config(
        pairs, tokenizer__kind="bpe", tokenizer__vocab_size=320, training__max_steps=2,
        regularization__subword_dropout=0.3,
    )  # fmt: skip
    runtime = prepare("cpu", "float32", 1)

    def epoch(number: int) -> list[str]:
        task = open_task(settings, (), runtime, None)
        task.begin_epoch(number)
        assert isinstance(task, Translation)
        text = [
            "\t".join(task.tokenizer.decode(side.tolist()) for side in pair) for pair in task._epoch
        ]
        assert sorted(text) == sorted(pairs.read_text().splitlines()[:54])
        return [" ".join(map(str, source)) for source, _ in task._epoch]

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    with pytest.raises(UsageError, match="merges are left out of bpe, not of word"):
        run(settings.with_values({"tokenizer.kind": "word"}), tmp_path / "run")


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
        ("model.coverage", True),
        ("model.encoder_layers", 2),
        ("model.encoder_cell", "gru"),
        ("training.batch_tokens", 100),
        ("training.best_by", "bleu"),
        ("regularization.subword_dropout", 0.1),
    ):
        more = {"model.attention": "additive", "model.look_up": "before"}
        with pytest.raises(UsageError, match=r"only --task translate"):
            Config().with_values({name: value, **(more if name == "model.coverage" else {})})
    with pytest.raises(UsageError, match="source_tokenizer: only --task translate"):
        Config().with_values({"source_tokenizer.kind": "char"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"training.bptt": 5}, r"training\.bptt: 5 cuts text.*use bptt = 0"),
        ({"training.state": "carried", "training.bptt": 5}, r"training\.state: 'carried'"),
        ({"data.strip_lines": True}, r"data\.strip_lines"),
        ({"model.look_up": "feeding", "model.attention": "none"}, r"model\.look_up: 'feeding'"),
        ({"model.coverage": True}, r"model\.coverage: .*use attention = 'additive'"),
        (
            {"source_tokenizer.kind": "word", "model.shared_embedding": True},
            r"model\.shared_embedding: the source has a vocabulary of its own",
        ),
        (
            {"model.encoder_layers": 2, "model.bridge": "last", "model.direction": "forward"},
            r"model\.bridge: 'last' hands .* 2 layers are not 1",
        ),
        (
            {"model.encoder_cell": "gru", "model.bridge": "last", "model.direction": "forward"},
            r"model\.bridge: 'last' hands .* another state than the decoder's",
        ),
        ({"source_tokenizer.kind": "words"}, r"tokenizer\.kind: unknown value 'words'"),
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


def test_lines_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    """Of training text and of validation text."""
    for name in ("p", "v"):
        (tmp_path / name).write_bytes(b"a\tb\nc\xff\td\n")
    data = DataConfig(train=(str(tmp_path / "p"),), valid=str(tmp_path / "v"))
    train, valid, notes = read_text(data)
    assert train == [[("a", "b"), ("c\ufffd", "d")]] == [valid]
    assert notes == [
        f"{tmp_path / name}: 1 of 2 lines were not UTF-8; each has U+FFFD for what was not."
        for name in ("p", "v")
    ]
    assert "1 of 2 lines" in read_text(DataConfig(train=data.train))[2][0]


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
