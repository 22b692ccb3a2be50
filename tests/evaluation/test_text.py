"""What is counted in a text, and how the figures hang together."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rnncli.errors import DataError, UsageError
from rnncli.evaluation.cache import CacheConfig
from rnncli.evaluation.dynamic import DynamicConfig
from rnncli.evaluation.ensemble import load_ensemble
from rnncli.evaluation.strings import encode_string
from rnncli.evaluation.text import Extras, evaluate_text
from rnncli.loading import Loaded
from rnncli.nn.stack import Run
from rnncli.text.corpus import encode_file
from rnncli.text.tokenizers import train_tokenizer
from tests.evaluation.truth import stepped
from tests.helpers import tiny_model

TEXT = " the cat sät \n\nthe zebra ran"


@pytest.fixture(scope="module")
def word_model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = tiny_model(tmp_path_factory.mktemp("word"), tokenizer="word", scale=5.0)
    return load_ensemble([path])[0]


def measured(model: Loaded, text: str = TEXT, state: str = "carried", **options: object):
    return evaluate_text(
        [model],
        encode_string(model.tokenizer, text),
        state=state,
        run_as=Run(),
        **options,  # type: ignore[arg-type]
    )


def test_counts_by_hand(word_model: Loaded):
    found = measured(word_model).to_dict()
    # the cat <unk> </s> | </s> | the <unk> ran </s>
    assert (found["tokens"], found["words"], found["oov"]) == (9, 9, 2)
    assert (found["characters"], found["bytes"]) == (29, 30)


def test_units_hang_together(word_model: Loaded):
    found = measured(word_model).to_dict()
    assert found["perplexity"] == math.exp(found["nats"] / 9)
    assert found["word_perplexity"] == found["perplexity"]
    assert found["bits_per_character"] == pytest.approx(found["nats"] / 29 / math.log(2))
    assert found["bits_per_byte"] == pytest.approx(found["nats"] / 30 / math.log(2))


def test_characters_have_their_own_perplexity_and_one_for_words(tmp_path: Path):
    (model,) = load_ensemble([tiny_model(tmp_path)])
    found = measured(model).to_dict()
    assert (found["tokens"], found["words"], found["characters"]) == (29, 9, 29)
    assert found["word_perplexity"] == pytest.approx(found["perplexity"] ** (29 / 9), rel=1e-12)
    assert found["bits_per_character"] == pytest.approx(math.log2(found["perplexity"]), rel=1e-12)


def test_without_oov_the_known_tokens_are_left(word_model: Loaded):
    model = word_model
    ids = model.tokenizer.encode_text(TEXT + "\n").tolist()
    costs = stepped(model.model, model.tokenizer.boundary_id, ids)
    known = [c for c, token in zip(costs, ids, strict=True) if token != model.tokenizer.unk_id]
    assert len(known) == 7
    found = measured(model).scores
    assert found.perplexity_without_oov == pytest.approx(math.exp(sum(known) / 7), rel=1e-5)


def test_carried_and_reset(word_model: Loaded):
    carried, reset = measured(word_model), measured(word_model, state="reset")
    lines = [line + "\n" for line in TEXT.split("\n")]
    alone = [measured(word_model, line).scores.nats for line in lines]
    assert reset.scores.nats == pytest.approx(sum(alone), rel=1e-6)
    assert carried.scores.nats != pytest.approx(reset.scores.nats, rel=1e-4)
    assert (carried.columns, reset.columns) == (1, 0)
    assert "|state:carried" in carried.scores.signature
    assert "|state:reset" in reset.scores.signature
    assert carried.to_dict()["state"] == "carried"


def test_a_missing_last_newline_changes_nothing(word_model: Loaded):
    assert measured(word_model, TEXT) == measured(word_model, TEXT + "\n")


def test_adapted_figures_stand_apart(word_model: Loaded):
    plain = measured(word_model)
    extras = Extras(cache=CacheConfig(5, 0.5, 0.2), dynamic=DynamicConfig())
    found = measured(word_model, extras=extras)
    assert found.scores == plain.scores
    values = found.to_dict()
    assert list(values["cache"]) == list(values["dynamic"]) == [
        "nats", "perplexity", "word_perplexity", "bits_per_character", "bits_per_byte",
        "perplexity_without_oov", "state", "signature",
    ]  # fmt: skip
    assert values["cache"]["nats"] != values["nats"] != values["dynamic"]["nats"]
    assert values["cache"]["signature"].endswith("|cache:window=5,theta=0.5,lambda=0.2")
    assert values["dynamic"]["signature"].endswith("|dynamic:plain,lr=0.1,decay=0,segment=5")
    assert "cache" not in values["signature"]
    assert {k: v for k, v in values.items() if k not in ("cache", "dynamic")} == plain.to_dict()


def test_notes_and_columns_are_signed(word_model: Loaded):
    found = measured(word_model, columns=3, notes=("lines:stripped",))
    assert found.columns == 3
    assert found.scores.signature.endswith("|state:carried|columns:3|lines:stripped")
    assert measured(word_model, columns=99).columns == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "reset", "columns": 2}, "--columns"),
        ({"state": "sometimes"}, "--state: unknown value 'sometimes'"),
        ({"state": "reset", "extras": Extras(cache=CacheConfig(3))}, "--cache-window.*carried"),
        ({"state": "reset", "extras": Extras(dynamic=DynamicConfig())}, "--dynamic.*carried"),
        ({"columns": 2, "extras": Extras(dynamic=DynamicConfig())}, "--dynamic.*--columns"),
        ({"columns": 0}, "--columns 0"),
        ({"extras": Extras(mc_dropout=2)}, "without dropout"),
    ],
)
def test_combinations_without_a_meaning(
    word_model: Loaded, options: dict[str, object], message: str
):
    with pytest.raises(UsageError, match=message):
        measured(word_model, **options)  # type: ignore[arg-type]


def test_a_string_counts_as_the_same_file(word_model: Loaded, tmp_path: Path):
    for text in ("a\rb\n\n\n", "\u2028 x \n y", "the\tcat \x0b\n", "no end"):
        (tmp_path / "text.txt").write_bytes(text.encode())
        for strip in (False, True):
            for tokenizer in (word_model.tokenizer, _bytes()):
                file = encode_file(tokenizer, tmp_path / "text.txt", strip_lines=strip)
                string = encode_string(tokenizer, text, strip_lines=strip)
                assert string.ids.tolist() == file.ids.tolist()
                assert string.counts == file.counts
                assert string.fingerprint == file.fingerprint
    with pytest.raises(DataError, match="empty"):
        encode_string(word_model.tokenizer, "")


def _bytes():
    from rnncli.sections import TokenizerConfig

    return train_tokenizer(TokenizerConfig(kind="byte"), [])
