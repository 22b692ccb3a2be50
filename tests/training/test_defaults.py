"""What is chosen for a text that nobody has tuned for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rnncli.config import Config
from rnncli.errors import FileError, UsageError
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.sections import DataConfig, TokenizerConfig
from rnncli.text.subword import SubwordTokenizer
from rnncli.text.tokenizers import train_tokenizer
from rnncli.training import defaults, translation_defaults
from rnncli.training.tasks import choose


@pytest.fixture(autouse=True)
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "measure_speed", lambda fixed: 3.2e11)


def chosen(path: Path, text: bytes, **fixed: Any) -> tuple[Config, list[str]]:
    path.write_bytes(text)
    dotted = {name.replace("__", "."): value for name, value in fixed.items()}
    values, reasons = defaults.choose(DataConfig(train=(str(path),)), dotted)
    assert not set(values) & set(dotted)
    return Config().with_values({**values, **dotted}), reasons


def test_text_with_unknown_words_is_read_by_word(tmp_path: Path) -> None:
    config, reasons = chosen(tmp_path / "t", b" the <unk> sat on a mat \n" * 9000)
    assert config.tokenizer.kind == "word"
    assert config.model.tied
    assert any("<unk>" in reason for reason in reasons)


def test_a_text_that_speaks_of_unknown_words_is_not_split_for_that(tmp_path: Path) -> None:
    text = b"The cat sat on the mat.\n" * 9000
    config, _ = chosen(tmp_path / "t", b"What <unk> means:\n" + text)
    assert config.tokenizer.kind == "char"


def test_a_tiny_text_is_not_cut_in_columns_of_a_few_tokens(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", b"The cat sat on the mat and the dog ran.\n")
    assert config.training.batch_size == 1


def test_a_sentencepiece_model_has_its_size(tmp_path: Path) -> None:
    pieces = SubwordTokenizer(trained_model(tmp_path))
    values, _ = defaults.choose(
        DataConfig(train=(str(tmp_path / "t"),)), {"tokenizer.model": str(tmp_path / "m.model")}
    )
    assert values["tokenizer.kind"] == pieces.kind == "bpe"
    assert "tokenizer.vocab_size" not in values
    assert "training.sampled_softmax" not in values


def trained_model(folder: Path) -> bytes:
    """m.model, beside the text t that it was trained on."""
    text = "The cat sat on the mat and the dog ran.\n" * 200
    (folder / "t").write_text(text)
    config = TokenizerConfig(kind="bpe", vocab_size=300)
    model = train_tokenizer(config, text.splitlines()).to_bytes()
    (folder / "m.model").write_bytes(model)
    return model


def test_plain_small_text_is_read_by_character(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", b"The cat sat on the mat.\n" * 9000)
    assert config.tokenizer.kind == "char"
    assert not config.model.tied
    assert config.training.sampled_softmax == 0


def test_large_text_is_read_by_subword(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "CHAR_LIMIT_BYTES", 1000)
    config, _ = chosen(tmp_path / "t", b"The cat sat on the mat.\n" * 9000)
    assert config.tokenizer.kind == "bpe"
    assert config.tokenizer.vocab_size == 8000


def test_more_time_means_a_larger_model_and_more_dropout(tmp_path: Path) -> None:
    text = b"The cat sat on the mat.\n" * 40_000
    runs = [chosen(tmp_path / "t", text, training__max_seconds=60.0 * m)[0] for m in (1, 5, 20, 60)]
    sizes = [run.model.hidden_size for run in runs]
    rates = [run.regularization.dropout for run in runs]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_without_any_limit_there_is_a_time_and_it_is_told(tmp_path: Path) -> None:
    config, reasons = chosen(tmp_path / "t", b"The cat sat on the mat.\n" * 9000)
    assert config.training.max_seconds == defaults.DEFAULT_SECONDS
    assert any("no limit was given" in reason for reason in reasons)


@pytest.mark.parametrize("limit", [{"training__epochs": 3}, {"training__max_steps": 50}])
def test_a_limit_that_is_given_is_the_only_one(tmp_path: Path, limit: dict[str, int]) -> None:
    config, _ = chosen(tmp_path / "t", b"The cat sat on the mat.\n" * 9000, **limit)
    assert config.training.max_seconds == 0
    assert config.training.epochs == limit.get("training__epochs", 0)


def test_what_is_given_stays_and_the_rest_fits_it(tmp_path: Path) -> None:
    config, _ = chosen(
        tmp_path / "t",
        b"The cat sat on the mat.\n" * 9000,
        model__hidden_size=48,
        regularization__dropout=0.15,
        tokenizer__kind="byte",
    )
    assert (config.model.hidden_size, config.regularization.dropout) == (48, 0.15)
    assert config.tokenizer.kind == "byte"


def test_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="absent"):
        defaults.choose(DataConfig(train=(str(tmp_path / "absent"),)), {})


def test_the_same_speed_rounds_to_the_same_size() -> None:
    sizes = {defaults._largest(lambda H, f=f: 12 * f * (512 / H) ** 2, 10**7) for f in (1.0, 1.02)}
    assert sizes == {512}


WORDS = (" ".join(f"w{k}" for k in range(3000)) + " <unk>" * 20 + " \n").encode() * 30


def test_no_dropout_means_none_at_all(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", WORDS, regularization__dropout=0.0, training__epochs=30)
    rates = config.regularization
    assert (rates.input_rate, rates.output_rate, rates.dropout_embedding) == (0.0, 0.0, 0.0)
    assert rates.weight_drop == 0.0


def test_an_adaptive_softmax_is_neither_tied_nor_sampled(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", WORDS * 10, model__output="adaptive")
    assert not config.model.tied
    assert config.training.sampled_softmax == 0


@pytest.mark.parametrize(("name", "decay"), [("adamw", 0.1), ("adam", 0.0), ("sgd", 0.0)])
def test_weights_decay_only_where_decay_is_decoupled(
    tmp_path: Path, name: str, decay: float
) -> None:
    config, _ = chosen(tmp_path / "t", WORDS, optimizer__name=name)
    assert config.optimizer.weight_decay == decay
    assert (config.optimizer.lr >= 1.0) == (name == "sgd")


def test_layers_that_are_given_are_told(tmp_path: Path) -> None:
    config, reasons = chosen(tmp_path / "t", WORDS, model__layers=3, training__epochs=2)
    assert config.model.layers == 3
    assert any("3 layers" in reason for reason in reasons)


def test_a_fixed_random_network_is_neither_tied_nor_thinned(tmp_path: Path) -> None:
    """Its embedding is fixed too, and connections left out would be another network."""
    more = {"training__epochs": 30, "model__hidden_size": 48}
    lstm, _ = chosen(tmp_path / "t", WORDS, **more)
    echo, _ = chosen(tmp_path / "t", WORDS, **more, model__cell="echo-state")
    assert lstm.model.tied and lstm.regularization.weight_drop > 0
    assert not echo.model.tied and echo.regularization.weight_drop == 0.0


def test_a_fixed_random_network_that_reads_music_is_not_thinned(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"60 64 67\n" * 300)
    fixed = {"task": "music", "training.max_seconds": 5.0}
    drops = [
        choose(DataConfig(train=(str(tmp_path / "t"),)), {**fixed, "model.cell": cell})[0][
            "regularization.weight_drop"
        ]
        for cell in ("lstm", "echo-state")
    ]
    assert drops[0] > 0.0 == drops[1]


@pytest.mark.parametrize("task", ["lm", "music"])
def test_a_cell_without_a_recurrent_matrix_is_given_no_setting_for_it(
    task: str, tmp_path: Path
) -> None:
    (tmp_path / "t").write_bytes(WORDS if task == "lm" else b"60 64 67\n" * 300)
    data = DataConfig(train=(str(tmp_path / "t"),))
    fixed = {"task": task, "training.epochs": 30, "model.hidden_size": 48}
    if task == "music":
        fixed["training.max_seconds"] = 5.0
    lstm, _ = choose(data, fixed)
    mingru, _ = choose(data, {**fixed, "model.cell": "mingru"})
    assert lstm.pop("regularization.weight_drop") > 0
    assert mingru == lstm
    Config().with_values({**mingru, **fixed, "model.cell": "mingru"})


def test_a_projection_decides_the_size_of_a_tied_embedding(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", WORDS, model__projection_size=24, training__epochs=3)
    assert config.model.tied and config.model.embedding_size == 24
    assert config.model.hidden_size > 24


def test_words_that_were_seen_once_teach_what_an_unknown_one_is(tmp_path: Path) -> None:
    text = b"The cat sat on the mat.\n" * 9000
    raw, _ = chosen(tmp_path / "t", text, tokenizer__kind="word")
    assert (raw.tokenizer.min_count, raw.tokenizer.vocab_size) == (2, 0)
    split, _ = chosen(tmp_path / "t", WORDS)
    assert split.tokenizer.min_count == 1
    given, _ = chosen(tmp_path / "t", text, tokenizer__kind="word", tokenizer__min_count=5)
    assert given.tokenizer.min_count == 5


def test_validations_are_neither_too_few_nor_too_many(tmp_path: Path) -> None:
    def every(lines: int, minutes: float) -> int:
        text = b"The cat sat on the mat.\n" * lines
        config, _ = chosen(tmp_path / "t", text, training__max_seconds=60 * minutes)
        return config.training.valid_every_steps

    assert every(40_000, 10) == 0  # once an epoch
    part = every(400_000, 0.2)
    assert 20 < part < 400_000 * 24 / 2048  # within the first epoch
    assert part >= 6 * 0.05 * 400_000 * 24 / 2048 - 1  # and validation is a tenth of the time
    assert every(200, 20) > 50  # hundreds of epochs of three steps
    config, _ = chosen(tmp_path / "t", b"The cat sat.\n" * 100, training__max_steps=10_000)
    assert config.training.valid_every_steps == 200
    (tmp_path / "valid").write_bytes(b"The cat sat on the mat.\n" * 200_000)
    fixed = {"data.valid": str(tmp_path / "valid"), "training.max_seconds": 12.0}
    (tmp_path / "t").write_bytes(b"The cat sat on the mat.\n" * 400_000)
    values, _ = defaults.choose(DataConfig(train=(str(tmp_path / "t"),)), fixed)
    assert values["training.valid_every_steps"] > 4 * part  # half as long as the text


def test_of_much_text_a_small_share_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "VALID_BYTES", 1000)
    text = b"The cat sat on the mat.\n" * 9000
    config, _ = chosen(tmp_path / "t", text)
    assert config.data.valid_fraction == pytest.approx(1000 / len(text), rel=0.01)


def test_a_small_text_gets_a_small_model_whatever_the_time(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", b"The cat sat on the mat.\n" * 200)
    assert config.model.hidden_size <= 128


def test_scripts_without_spaces_have_as_many_tokens_as_characters(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("".join(chr(0x4E00 + k) for k in range(3000)) * 10, encoding="utf-8")
    seen = defaults.glance(DataConfig(train=(str(path),)))
    assert seen.alphabet == 3000
    assert defaults._token_count("char", seen) == 30_000
    assert defaults._token_count("bpe", seen) == 20_000
    config, _ = chosen(path, path.read_bytes(), tokenizer__kind="char", training__epochs=2)
    assert config.model.tied


def test_embeddings_of_characters_are_small_unless_they_are_the_output_too(tmp_path: Path) -> None:
    settings = {"tokenizer__kind": "char", "model__hidden_size": 256, "training__epochs": 3}
    for more, size in (
        ({}, 128),
        ({"model__tied": True}, 256),
        ({"model__tied": True, "model__projection_size": 24}, 24),
        ({"model__residual": "add"}, 256),
        ({"model__hidden_size": 64}, 64),
    ):
        config, _ = chosen(tmp_path / "t", WORDS, **{**settings, **more})
        assert config.model.embedding_size == size


def test_there_are_as_many_layers_as_cells_are_named(tmp_path: Path) -> None:
    config, _ = chosen(tmp_path / "t", WORDS, model__cell="lstm,gru,lstm", training__epochs=3)
    assert config.model.layers == 3
    one, _ = chosen(tmp_path / "t", WORDS, model__cell="gru", training__epochs=3)
    assert one.model.layers == 2


def test_translation_grows_with_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More time: more units and more dropout, never less; what is given decides the rest."""
    monkeypatch.setattr(translation_defaults, "measure_speed", lambda fixed: 1e11)
    pairs = tmp_path / "p.tsv"
    pairs.write_bytes(b"a boat on the river .\tein Boot auf dem Fluss .\n" * 40_000)
    found = []
    for minutes in (1, 10, 60, 600):
        fixed = {"task": "translate", "training.max_seconds": 60.0 * minutes}
        values, reasons = choose(DataConfig(train=(str(pairs),)), fixed)
        config = Config().with_values({**values, **fixed, "data.train": [str(pairs)]})
        assert config.tokenizer.kind == "bpe"
        assert any("passes over the pairs" in reason for reason in reasons)
        found.append((config.model.hidden_size, config.regularization.dropout))
    assert found == sorted(found)
    assert found[0][0] < found[-1][0] and found[0][1] < found[-1][1]
    fixed = {"task": "translate", "training.epochs": 5, "model.look_up": "layers"}
    values, _ = choose(DataConfig(train=(str(pairs),)), fixed)
    assert (values["model.layers"], values["regularization.dropout"]) == (2, 0.2)


def test_text_that_is_run_twice_is_seen_half_as_often_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "measure_speed", lambda fixed: 1e11)
    path = tmp_path / "text"
    path.write_text("".join(f"w{k} a b\n" for k in range(20_000)) * 2)
    data, fixed = DataConfig(train=(str(path),)), {"tokenizer.kind": "word"}
    found = [
        choose(data, {**fixed, "training.max_seconds": 900.0, "regularization.r_drop": alpha})[0]
        for alpha in (0.0, 2.0)
    ]
    assert found[0]["training.sampled_softmax"] > 0
    assert "training.sampled_softmax" not in found[1]
    sizes = [values["model.hidden_size"] for values in found]
    assert sizes[1] < sizes[0]


def test_with_time_enough_pairs_are_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation_defaults, "measure_speed", lambda fixed: 1e11)
    line = "a boat on the river .\tein Boot auf dem Fluss .\n"

    def of(minutes: float, **more: Any) -> tuple[Any, ...]:
        limit = {"training__max_seconds": 60.0 * minutes}
        values = choose_pairs(tmp_path / "p.tsv", line * 40_000, **limit, **more)
        names = ("regularization.r_drop", "regularization.dropout", "training.batch_size")
        return tuple(values.get(name) for name in names)

    assert of(5) == (None, 0.2, 64)
    assert of(120) == (3.0, 0.25, 32)
    assert of(120, regularization__r_drop=0.0) == (None, 0.2, 64)
    assert of(120, regularization__dropout=0.0)[0] is None
    assert of(120, training__risk_candidates=4)[0] is None
    assert of(5, regularization__r_drop=1.0) == (None, 0.25, 32)
    asked = choose_pairs(tmp_path / "p.tsv", line * 40_000, training__epochs=90)
    assert "regularization.r_drop" not in asked
    longer = choose_pairs(tmp_path / "p.tsv", line * 40_000, training__max_seconds=7200.0)
    assert longer["tokenizer.vocab_size"] == 2 * asked["tokenizer.vocab_size"]


def choose_pairs(path: Path, text: str, **fixed: Any) -> dict[str, Any]:
    path.write_text(text)
    dotted = {name.replace("__", "."): value for name, value in fixed.items()}
    return choose(DataConfig(train=(str(path),)), {"task": "translate", **dotted})[0]


def test_pairs_of_words_leave_some_to_be_unknown(tmp_path: Path) -> None:
    values = choose_pairs(tmp_path / "p.tsv", "a boat\tein Boot\n" * 40)
    assert (values["tokenizer.kind"], values["tokenizer.min_count"]) == ("word", 2)
    own = {"source_tokenizer__kind": "word"}
    values = choose_pairs(tmp_path / "p.tsv", "a boat\tein Boot\n" * 40, **own)
    assert values["source_tokenizer.min_count"] == 2
    few = choose_pairs(tmp_path / "p.tsv", "hello world\tbonjour monde\ngood night\tbonne nuit\n")
    assert few["tokenizer.min_count"] == 1  # or there would be no words at all


def test_the_best_pairs_are_found_by_what_their_targets_can_be_measured_with(
    tmp_path: Path,
) -> None:
    def best_by(pair: str) -> str:
        text = f"{pair}\n" * (600_000 // len(pair.encode()))
        found: str = choose_pairs(tmp_path / "p.tsv", text, training__epochs=5)["training.best_by"]
        return found

    assert best_by("a boat on a river\tein Boot auf einem Fluss") == "bleu"
    assert best_by("boat N PL\tboats") == "chrf"  # no four words in a row
    assert best_by("a boat on a river\t川に船が一艘浮かんでいます") == "chrf"


def test_validations_of_pairs_are_neither_too_few_nor_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation_defaults, "measure_speed", lambda fixed: 1e11)
    line = "a boat on a river\tein Boot auf einem Fluss\n"

    def every(pairs: int, **more: Any) -> int:
        values = choose_pairs(tmp_path / "p.tsv", line * pairs, **more)
        return int(values.get("training.valid_every_steps", 0))

    assert every(40) == 20 and every(40, training__epochs=9) == 0
    assert every(40_000, training__max_seconds=600.0) == 0
    assert 20 < every(400_000, training__max_seconds=60.0) < 400_000 / 64


def test_pairs_without_spaces_are_read_by_subword(tmp_path: Path) -> None:
    values = choose_pairs(
        tmp_path / "p.tsv", "a boat on a river\t川に船が一艘浮かんでいます\n" * 40
    )
    assert values["tokenizer.kind"] == "bpe" and values["tokenizer.vocab_size"] == 500


def test_no_more_than_a_megabyte_of_pairs_is_held_out(tmp_path: Path) -> None:
    line = "a boat on a river\tein Boot auf einem Fluss\n"
    values = choose_pairs(tmp_path / "p.tsv", line * 1_000_000, training__epochs=1)
    assert values["data.valid_fraction"] == pytest.approx(1e6 / (1e6 * len(line)), rel=1e-3)
    assert "data.valid_fraction" not in choose_pairs(tmp_path / "p.tsv", line * 1000)


@pytest.mark.parametrize("fixed", [{"model__input": "one-hot"}, {"model__output": "adaptive"}])
def test_pairs_are_tied_where_they_can_be(tmp_path: Path, fixed: dict[str, Any]) -> None:
    values = choose_pairs(tmp_path / "p.tsv", "a boat\tein Boot\n" * 40, **fixed)
    assert not values["model.tied"]
    dotted = {name.replace("__", "."): value for name, value in fixed.items()}
    Config().with_values({"task": "translate", **values, **dotted})


def test_dot_attention_is_given_annotations_of_its_size(tmp_path: Path) -> None:
    """By an encoder that reads one way, unless a direction is asked for."""
    pairs = tmp_path / "p.tsv"
    pairs.write_text("a boat\tein Boot\n" * 40)
    data = DataConfig(train=(str(pairs),))
    for attention, direction in (("dot", "forward"), ("general", "bidirectional")):
        fixed = {"task": "translate", "model.attention": attention}
        values, reasons = choose(data, fixed)
        config = Config().with_values({**values, **fixed})
        assert config.model.direction == direction
        assert any(reason.startswith("direction") for reason in reasons) == (attention == "dot")
        EncoderDecoder(config.model, 10)
    fixed = {"task": "translate", "model.attention": "dot", "model.direction": "bidirectional"}
    values, _ = choose(data, fixed)
    assert "model.direction" not in values
    with pytest.raises(UsageError, match=r"model\.attention: dot .*model\.direction = 'forward'"):
        EncoderDecoder(Config().with_values({**values, **fixed}).model, 10)


def test_what_is_said_of_pairs(tmp_path: Path) -> None:
    """The limit of time that nobody gave is told, and why tokens are what was chosen, not given."""
    pairs = tmp_path / "p.tsv"
    pairs.write_text("a boat on the river .\tein Boot auf dem Fluss .\n" * 300)
    data = DataConfig(train=(str(pairs),))
    _, reasons = choose(data, {"task": "translate"})
    assert any(text.startswith("time: no limit was given, so 10 minutes") for text in reasons)
    assert any(text.startswith("tokens: word, one vocabulary") for text in reasons)
    given = {"task": "translate", "tokenizer.kind": "char", "training.epochs": 3}
    _, reasons = choose(data, given)
    assert not any(text.startswith(("time:", "tokens:")) for text in reasons)


def test_steps_are_passes_over_the_pairs(tmp_path: Path) -> None:
    line = "a boat on the river .\tein Boot auf dem Fluss .\n"
    steps = round(44 * 40_000 / 64)
    rates = [
        choose_pairs(tmp_path / "p.tsv", line * 40_000, **{limit: value})["regularization.dropout"]
        for limit, value in (
            ("training__epochs", 44), ("training__max_steps", steps), ("training__max_steps", 99)
        )
    ]  # fmt: skip
    assert rates == [0.2, 0.2, 0.1]


def test_a_text_larger_than_the_layers_needs_little_dropout(tmp_path: Path) -> None:
    line, rates = b"a line of some characters\n", []
    for lines in (10_000, 120_000):
        values, _ = chosen_values(tmp_path / "t", line * lines)
        rates.append(values["regularization.dropout"])
    assert rates[0] == 0.25 and rates[1] < 0.02


def chosen_values(path: Path, text: bytes) -> tuple[dict[str, Any], list[str]]:
    path.write_bytes(text)
    fixed = {"tokenizer.kind": "char", "training.epochs": 8, "model.hidden_size": 192}
    return defaults.choose(DataConfig(train=(str(path),)), fixed)
